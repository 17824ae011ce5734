"""Commands about the models themselves: list, info, classify, evaluate, train, stages."""

import argparse
import json
import logging
import os
import re
import signal
import time
from typing import Any

import zoo
from zoo import terminal
from zoo.cli.common import asked_runtime, normalised, predictor, print_json, read_images
from zoo.errors import InputError

__all__ = ["classify", "evaluate", "info", "list_", "stages", "train"]


def list_(args: argparse.Namespace) -> int:
    """`zoo list`: the trained models with their accuracy, or every name there is."""
    from zoo.manifest import read_manifest

    names = zoo.list_models(args.pattern, pretrained=not args.all)
    entries = [read_manifest().weights.get(name) for name in names]
    if args.json:
        return print_json(
            [
                {"name": n, "trained": e is not None, "metrics": e.metrics if e else {}}
                for n, e in zip(names, entries, strict=True)
            ]
        )
    if args.all:
        print("\n".join(names))
        return 0
    table = terminal.table("model", "data", "top-1", "parameters", "provenance")
    for name, e in zip(names, entries, strict=True):
        assert e is not None
        top1 = f"{e.metrics['top1']:.2%}" if "top1" in e.metrics else "not measured"
        terminal.add_row(table, name, e.data.title, top1, f"{e.parameters:,}", e.provenance)
    terminal.show(table, terminal.console())
    return 0


def info(args: argparse.Namespace) -> int:
    """`zoo info`: configuration, data, metrics and files of a model."""
    from zoo.provenance import UNKNOWN

    found = zoo.info(args.name)
    values: dict[str, Any] = {
        "name": found.name,
        "model": found.config,
        "data": found.data.to_dict(),
        "trained": None if found.provenance == UNKNOWN else found.weights is not None,
        "provenance": found.provenance,
    }
    if found.weights:
        w = found.weights
        values |= {
            "parameters": w.parameters,
            "metrics": w.metrics,
            "licence": w.licence,
            "recipe": w.recipe,
            "source": w.source,
            "energy": w.energy or "not measured",
            "repo": w.repo,
            "revision": w.revision,
        }
        values["files"] = {
            name: {"sha256": f.sha256, "bytes": f.bytes} for name, f in w.files.items()
        }
    if args.json:
        return print_json(values)
    table = terminal.table("", "")
    table.show_header = False
    for key, value in values.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        shown = [
            f"{field}: {_shown(v)}" if field else _shown(v)
            for field, v in lines
            if v not in (None, "", (), [])
        ]
        for i, text in enumerate(shown):
            terminal.add_row(table, key if i == 0 else "", text)
    terminal.show(table, terminal.console())
    return 0


def _shown(value: Any) -> str:
    """For people; `--json` has every digit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, str):
        return f"{value[:12]}..." if re.fullmatch("[0-9a-f]{64}", value) else value
    return f"{value:,.6g}" if isinstance(value, float) and abs(value) < 1e5 else f"{value:,.0f}"


def classify(args: argparse.Namespace) -> int:
    """`zoo classify`: predictions for image files, or for the bundled images of the model's data."""
    network = predictor(args.model, asked_runtime(args, args.model))
    data, name = network.data, network.name
    pixels, labels, titles, changes = read_images(args.images, data)
    logits = network.predict(normalised(pixels, data))
    silent = network.warn_of_silence()
    chosen = logits.argmax(1).tolist()
    correct = sum(c == y for c, y in zip(chosen, labels, strict=True)) if labels else None
    rows = [
        {"image": t, "prediction": data.label(c), "confidence": round(float(p.max()), 4)}
        | ({"label": data.label(labels[i])} if labels else {"changes": changes[i]})
        for i, (t, c, p) in enumerate(zip(titles, chosen, logits.softmax(1), strict=True))
    ]
    if args.json:
        return print_json(
            {
                "model": name,
                "images": len(rows),
                "correct": correct,
                "silent": silent,
                "predictions": rows,
            }
        )
    table = terminal.table(
        "image",
        "prediction",
        "confidence",
        *(["label"] if labels else ["image changed"] if any(changes) else []),
    )
    shown = rows[:8] if labels else rows
    for row, done in zip(shown, changes, strict=False):
        last = [str(row["label"])] if labels else [", ".join(done)] if any(changes) else []
        terminal.add_row(
            table, str(row["image"]), str(row["prediction"]), f"{row['confidence']:.0%}", *last
        )
    terminal.show(table, terminal.console())
    if correct is not None:
        share = f"{correct} of {len(rows)} bundled {data.title} images right ({correct / len(rows):.1%})"
        print(f"{name}: {share}; the first {len(shown)} above")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """`zoo evaluate`: top-1 accuracy on a whole split."""
    from zoo.processor import processor
    from zoo.training.evaluate import count_correct
    from zoo.training.run import held_out_share, load_for_evaluation

    network = predictor(args.model, asked_runtime(args, args.model))
    name = network.name
    split = load_for_evaluation(
        network.data, args.split, network.steps, source=args.data, skip_bad=args.skip_bad
    )
    data = network.data.stored_as(split.encoding)
    begun = time.perf_counter()
    with terminal.progress() as bar:
        right, seen = count_correct(
            network.predict, split, data, progress=terminal.advance(bar, "images")
        )
    speed = seen / (time.perf_counter() - begun)
    silent = network.warn_of_silence()
    held_out = args.split == "test" and args.data and held_out_share(data, args.data)
    measured = "validation" if held_out else args.split
    values: dict[str, Any] = {
        "model": name,
        "data": data.title,
        "split": measured,
        "images": seen,
        "top1": right / seen,
    }
    if args.json:
        return print_json(
            values
            | {
                "silent": silent,
                "skipped": split.skipped,
                "images_per_second": speed,
                "processor": processor(),
            }
        )
    skipped = f" ({split.skipped} unreadable ones left out)" if split.skipped else ""
    print(
        f"{name}: top-1 {right / seen:.2%} on the {seen:,} {measured} images of {data.title}{skipped}, {speed:,.0f} a second"
    )
    return 0


def train(args: argparse.Namespace) -> int:
    """`zoo train`: a run by its recipe, or the rest of one that was interrupted."""
    from zoo.training.describe import ImageOptions
    from zoo.training.run import train_name
    from zoo.training.train import Options

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one speaks
    logging.basicConfig(format="%(message)s")
    # a line for each epoch
    logging.getLogger("zoo").setLevel(logging.INFO if first else logging.ERROR)
    overrides = args.set
    if args.freeze:
        if "freeze" in overrides:
            raise InputError("freeze is given twice, by --freeze and by --set: give it once")
        overrides = overrides | {"freeze": json.dumps(args.freeze)}  # a list as TOML writes it too
    try:
        with terminal.progress() as bar:
            options = Options(
                save_every=args.save_every, evaluate_every=args.evaluate_every, skip_bad=args.skip_bad, shard=args.shard,
                progress=terminal.advance(bar, "steps") if first else None,
            )  # fmt: skip
            result = train_name(
                args.name, run=args.run, data=args.data,
                image_options=ImageOptions(size=args.size or 0, channels=args.channels or 0, mean=tuple(args.mean), std=tuple(args.std)),
                overrides=overrides, config=args.config, init=args.init, teacher=args.teacher, options=options,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
    if first:
        print(result)
    return 0


def stages(args: argparse.Namespace) -> int:
    """`zoo stages`: what is left of a plan, one training run on each core; or what of it is
    finished.
    """
    from zoo.training.stages import Plan, Runner

    plan = Plan.read(args.plan)
    runner = Runner(plan, args.runs, args.data, jobs=args.jobs or os.cpu_count() or 1)
    if args.finished:
        for stage, folder in plan.finished(args.runs):
            print(folder, args.data.get(stage.tag, ""))
        return 0
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO)  # a line for each stage
    # stop what was started, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return 0 if runner.run() else 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoints") from None
