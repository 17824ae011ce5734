"""The `zoo` command: the front door, from which both rooms, `zoo` and `export`, are entered.

Every command imports what it needs when it runs, so `zoo list` never waits for torch. Exit status: 0 if what was asked for is
true or done, 1 if a check found otherwise, 2 if it could not be asked.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo import terminal
from zoo.errors import InputError, VerificationError, ZooError

if TYPE_CHECKING:
    from nir import NIRGraph
    from torch import Tensor

    from export.quantise import Precision
    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors of the zoo become one line on stderr."""
    args = _parser().parse_args(argv)
    command: Command = args.command
    try:
        return command(args)
    except VerificationError as error:
        return _fail(error, 1)
    except ZooError as error:
        return _fail(error, 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'the file system'} cannot be read or written: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return 130


def _fail(error: object, status: int) -> int:
    print(f"zoo: {error}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zoo", description="Trained deep spiking residual networks: load, classify, export, verify, and count their energy."
    )
    parser.add_argument("--version", action="version", version=f"zoo {zoo.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, *, table: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        if table:
            sub.add_argument("--json", action="store_true", help="print JSON instead of text")
        return sub

    def weights(sub: argparse.ArgumentParser) -> None:
        text = "as they are (default), or rounded to 8 bits with a scale per output channel, or per layer as on Speck"
        sub.add_argument("--weights", choices=("float32", "int8", "int8-layer"), default="float32", help=text)

    sub = add("list", _list, "list trained models, or every architecture")
    sub.add_argument("pattern", nargs="?", default="*", help="shell wildcard, as in 'danet50*'")
    sub.add_argument("--all", action="store_true", help="every architecture that can be created, trained or not")

    sub = add("info", _info, "show what a name means and what its weights are worth")
    sub.add_argument("name", help="as in danet50-t4.in1k")

    sub = add("classify", _classify, "classify images (the bundled ones if none are given)")
    sub.add_argument("model", help="a name, a model folder, or an exported .onnx file")
    sub.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files of the model's size")

    sub = add("evaluate", _evaluate, "measure top-1 accuracy on a whole split")
    sub.add_argument("model", help="a name, a model folder, or an exported .onnx file")
    sub.add_argument("--data", metavar="SOURCE", help="where the data set lies: a folder, or a hub id ORG/NAME")
    sub.add_argument("--split", choices=("train", "test"), default="test", help="test (default) is the held-out one")
    sub.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and say how many")

    sub = add("export", _export, "write a model as ONNX and NIR, verified layer by layer")
    sub.add_argument("name", help="a name or a model folder")
    sub.add_argument("--to", nargs="+", choices=("onnx", "nir"), default=["onnx"], help="formats (default: onnx)")
    sub.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: here)")
    sub.add_argument(
        "--profile", choices=("portable", "native"), default="portable", help="NIR for simulators (default), or for chips"
    )
    weights(sub)
    sub.add_argument(
        "--data", metavar="SOURCE", help="the test split for the accuracy of rounded weights (default: bundled images)"
    )

    sub = add("verify", _verify, "check weights against the manifest, or an export against its model")
    sub.add_argument("name", help="a name or a model folder")
    sub.add_argument("--export", type=Path, metavar="FILE", help="check this .onnx or .nir export, layer by layer")

    sub = add("check", _check, "say whether a network fits a neuromorphic chip, and why not")
    sub.add_argument("name", help="a name, a model folder, or a .nir file of anyone")
    sub.add_argument(
        "--target", default="all", metavar="CHIP", help="speck2e, loihi1, loihi2, spinnaker2, xylo, akida1, truenorth, or all"
    )
    weights(sub)
    sub.add_argument("--html", type=Path, metavar="FILE", help="also write the report there, one page")

    sub = add("energy", _energy, "count the operations of each layer on real images and price them")
    sub.add_argument("name", help="a name or a model folder")
    sub.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files (default: the bundled ones)")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="also write NAME.json and NAME.html there")

    sub = add("train", _train, "train a model after its data set's recipe; resumes where it was stopped", table=False)
    sub.add_argument("name", help="with a data set, as in danet20-t4.fmnist")
    sub.add_argument("--data", metavar="SOURCE", help="where the data set lies: a folder, or a hub id ORG/NAME")
    sub.add_argument("--run", type=Path, metavar="FOLDER", help="checkpoints, metrics and weights (default: runs/NAME)")
    sub.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override values of the recipe")
    sub.add_argument("--teacher", metavar="MODEL", help="distil from a name, a model folder, or a Python module:function")
    sub.add_argument("--save-every", type=_positive, default=500, metavar="STEPS", help="between two checkpoints (default: 500)")
    sub.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and say how many")
    sub.add_argument("--shard", action="store_true", help="divide the weights among the processes that torchrun started (FSDP2)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _list(args: argparse.Namespace) -> int:
    from zoo.names import manifest

    names = zoo.list_models(args.pattern, pretrained=not args.all)
    entries = [manifest().weights.get(name) for name in names]
    if args.json:
        return _json(
            [{"name": n, "trained": e is not None, "metrics": e.metrics if e else {}} for n, e in zip(names, entries, strict=True)]
        )
    if args.all:
        print("\n".join(names))
        return 0
    table = terminal.table("model", "data", "top-1", "parameters", "provenance")
    for name, e in zip(names, entries, strict=True):
        assert e is not None
        table.add_row(name, e.data.title, f"{e.metrics['top1']:.2%}", f"{e.parameters:,}", e.provenance)
    terminal.console().print(table)
    return 0


def _info(args: argparse.Namespace) -> int:
    info = zoo.info(args.name)
    values: dict[str, Any] = {
        "name": info.name,
        "model": info.config,
        "data": info.data.to_dict(),
        "trained": info.weights is not None,
    }
    if info.weights:
        w = info.weights
        values |= {
            "parameters": w.parameters,
            "metrics": w.metrics,
            "licence": w.licence,
            "provenance": w.provenance,
            "recipe": w.recipe,
        }
        values["files"] = {name: {"sha256": f.sha256, "bytes": f.bytes} for name, f in w.files.items()}
    if args.json:
        return _json(values)
    table = terminal.table("", "")
    table.show_header = False
    for key, value in values.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        for i, (field, v) in enumerate(lines):
            table.add_row(key if i == 0 else "", f"{field}: {v}" if field else str(v))
    terminal.console().print(table)
    return 0


def _classify(args: argparse.Namespace) -> int:
    predict, data, name, _ = _predictor(args.model)
    pixels, labels, titles = _images(args.images, data)
    logits = predict(_normalised(pixels, data))
    chosen = logits.argmax(1).tolist()
    correct = sum(c == y for c, y in zip(chosen, labels, strict=True)) if labels else None
    rows = [
        {"image": t, "prediction": data.label(c), "confidence": round(float(p.max()), 4)}
        | ({"label": data.label(labels[i])} if labels else {})
        for i, (t, c, p) in enumerate(zip(titles, chosen, logits.softmax(1), strict=True))
    ]
    if args.json:
        return _json({"model": name, "images": len(rows), "correct": correct, "predictions": rows})
    table = terminal.table("image", "prediction", "confidence", *(["label"] if labels else []))
    shown = rows[:8] if labels else rows
    for row in shown:
        table.add_row(
            str(row["image"]), str(row["prediction"]), f"{row['confidence']:.0%}", *([str(row["label"])] if labels else [])
        )
    terminal.console().print(table)
    if correct is not None:
        share = f"{correct} of {len(rows)} bundled {data.title} images right ({correct / len(rows):.1%})"
        print(f"{name}: {share}; the first {len(shown)} above")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from zoo.training.config import Recipe
    from zoo.training.evaluate import correct
    from zoo.training.run import load_data

    predict, data, name, steps = _predictor(args.model)
    recipe = Recipe.load(data.tag)
    split = load_data(replace(recipe, source=args.data or recipe.source), args.split, steps, skip_bad=args.skip_bad)
    with terminal.progress() as bar:
        right, seen = correct(predict, split, data, progress=terminal.advance(bar, "images"))
    values = {"model": name, "data": data.title, "split": args.split, "images": seen, "top1": right / seen}
    if args.json:
        return _json(values | {"skipped": split.skipped})
    skipped = f" ({split.skipped} unreadable ones left out)" if split.skipped else ""
    print(f"{name}: top-1 {right / seen:.2%} on the {seen:,} {args.split} images of {data.title}{skipped}")
    return 0


def _export(args: argparse.Namespace) -> int:
    _our_export()
    model, name = _model(args.name)
    accuracy = {}
    if args.weights != "float32":
        if "onnx" in args.to:
            raise InputError(f"--weights {args.weights} is for --to nir: export the ONNX file without it")
        from export.quantise import rounded

        unrounded, model, name = model, rounded(model, args.weights), f"{name}.{args.weights}"
        accuracy = _accuracies({"float32": unrounded, args.weights: model}, args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    written: list[dict[str, Any]] = []

    def wrote(path: Path, what: str, **more: Any) -> None:
        written.append({"file": str(path), "bytes": path.stat().st_size, "verification": what} | more)

    if "onnx" in args.to:
        from export.onnx import write_onnx

        path = args.out / f"{name}.onnx"
        with terminal.status(f"exporting and verifying {path.name}"):
            wrote(path, str(write_onnx(model, path)))
    if "nir" in args.to:
        from export.nir_file import trains_path, write_nir

        path = args.out / f"{name}.nir"
        with terminal.status(f"exporting and verifying {path.name}"):
            result = write_nir(model, path, _two_images(model), profile=args.profile)
        wrote(path, str(result), **accuracy)
        wrote(
            trains_path(path), f"spikes of {len(result.trains)} neuron layers for {result.images} images, to check a receiver with"
        )
    if args.json:
        return _json(written)
    for item in written:
        print(f"{item['file']} ({item['bytes']:,} bytes): {item['verification']}")
    if accuracy:
        print(f"top-1 {accuracy['float32']:.2%}, with {args.weights} weights {accuracy[args.weights]:.2%}, on {accuracy['images']}")
    return 0


def _accuracies(models: "dict[str, DANet]", source: str | None) -> dict[str, Any]:
    """Top-1 of each model on the test split at `source`, or without one on the bundled images; and which images they were."""
    import torch

    from zoo.samples import samples
    from zoo.training.evaluate import correct
    from zoo.training.run import load_data

    first = next(iter(models.values()))
    assert first.origin is not None
    data, found = first.origin.data, {}
    if source is None:
        pixels, labels = samples(data.tag)
        x, seen = _normalised(pixels, data), len(labels)
    else:
        from zoo.training.config import Recipe

        split = load_data(replace(Recipe.load(data.tag), source=source), "test", first.config.steps)
    for name, model in models.items():
        predict = torch.inference_mode()(model)
        if source is None:
            right = int((predict(x).argmax(1) == labels).sum())
        else:
            with terminal.progress() as bar:
                right, seen = correct(predict, split, data, progress=terminal.advance(bar, "images"))
        found[name] = right / seen
    return found | {"images": f"{seen:,} {'bundled' if source is None else 'test'} images of {data.title}"}


def _two_images(model: "DANet") -> "Tensor | None":
    """Of those that come with the zoo; None where none do."""
    from zoo.samples import samples

    assert model.origin is not None
    try:
        pixels, _ = samples(model.origin.data.tag)
    except InputError:
        return None
    return _normalised(pixels[:2], model.origin.data)


def _verify(args: argparse.Namespace) -> int:
    if args.export:
        _our_export()
        from export.verify.nir import verify_nir
        from export.verify.onnx import verify_onnx
        from export.verify.result import Verification

        verify: Callable[..., Verification] = verify_nir if args.export.suffix == ".nir" else verify_onnx
        model, _ = _model(args.name)
        with terminal.status(f"verifying {args.export}"):
            result = verify(model, args.export)
        ok, text, what = result.ok, str(result), str(args.export)
    else:
        from zoo.names import manifest
        from zoo.weights import digest

        model, what = _model(args.name)  # raises if a file is not what the manifest says, or a tensor not what the model needs
        assert model.origin is not None
        if Path(args.name).is_dir():
            text = f"a whole model; not in the manifest, so nothing to compare its sha256 {digest(model.origin.weights)} with"
        else:
            text = f"all {len(manifest().weights[what].files)} files have the size and sha256 of the manifest"
        ok = True
    if args.json:
        _json({"checked": what, "ok": ok, "result": text})
    else:
        print(f"{what}: {text}")
    return 0 if ok else 1


def _check(args: argparse.Namespace) -> int:
    _our_export()
    from export.targets import check, targets, to_html

    graph, name, about = _native_graph(args.name, args.weights)
    with terminal.status(f"checking {name}"):
        checks = [check(graph, target) for target in (targets() if args.target == "all" else [args.target])]
    if args.html:
        args.html.write_text(to_html(checks, name), encoding="utf-8")
    if args.json:
        _json({"name": name, "about": about, "checks": [c.to_json() for c in checks]})
    else:
        print(f"{name}: {about}")
        for c in checks:
            c.print(terminal.console())
        if args.html:
            print(f"written to {args.html}")
    return 0 if all(c.fits for c in checks) else 1


def _native_graph(name: str, precision: "Precision") -> "tuple[NIRGraph, str, str]":
    """The graph of a `.nir` file or of a model, the name of it, and where its weights come from."""
    if name.endswith(".nir"):
        from export.graph import read_graph

        if precision != "float32":
            raise InputError(f"--weights {precision} rounds a model: give its name, or the .nir file as it is to be checked")
        return read_graph(Path(name)), Path(name).name, "the weights of the file"
    from export.nir import to_nir
    from export.quantise import rounded

    untrained = not Path(name).is_dir() and zoo.info(name).weights is None
    model = zoo.create(name).eval() if untrained else zoo.load(name)
    assert model.origin is not None
    about = f"{'random' if untrained else 'trained'} weights, {precision}"
    return to_nir(rounded(model, precision), profile="native"), model.origin.name, about


def _energy(args: argparse.Namespace) -> int:
    _our_export()
    from export.energy import energy_report

    model, name = _model(args.name)
    assert model.origin is not None
    data = model.origin.data
    pixels, labels, _ = _images(args.images, data)
    with terminal.progress() as bar:
        report = energy_report(model, _normalised(pixels, data), labels or None, progress=terminal.advance(bar, "images"))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for suffix, text in (("json", json.dumps(report.to_json(), indent=2) + "\n"), ("html", report.to_html())):
            (args.out / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    if args.json:
        return _json(report.to_json())
    report.print(terminal.console())
    if args.out:
        print(f"written to {args.out / name}.json and .html")
    return 0


def _train(args: argparse.Namespace) -> int:
    from zoo.training.run import train_name

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one speaks
    logging.basicConfig(format="%(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO if first else logging.ERROR)  # a line for each epoch
    overrides = dict(item.partition("=")[::2] for item in args.set)
    with terminal.progress() as bar:
        result = train_name(
            args.name, run=args.run, data=args.data, overrides=overrides, teacher=args.teacher, save_every=args.save_every,
            skip_bad=args.skip_bad, shard=args.shard, progress=terminal.advance(bar, "steps") if first else None,
        )  # fmt: skip
    if first:
        print(result)
    return 0


def _model(name: str) -> "tuple[DANet, str]":
    model = zoo.load(name)
    assert model.origin is not None
    return model, model.origin.name


def _predictor(model: str) -> "tuple[Callable[[Tensor], Tensor], DatasetSpec, str, int]":
    """Normalised images `[B, C, H, W]` -> logits `[B, K]`, by torch or, for an `.onnx` file, onnxruntime; the data; a name; T."""
    import torch

    if model.endswith(".onnx"):
        _our_export()
        from export.runtime import OnnxModel

        exported = OnnxModel(Path(model))
        name = f"{exported.name} (onnxruntime)"
        return lambda x: torch.from_numpy(exported.run(x.numpy()).logits), exported.data, name, exported.steps
    network, name = _model(model)
    assert network.origin is not None
    return torch.inference_mode()(network), network.origin.data, name, network.config.steps


def _images(paths: list[Path], data: "DatasetSpec") -> "tuple[Tensor, list[int], list[str]]":
    """Pixels, labels (none for files), and a title for each."""
    import torch

    from zoo.images import read_image
    from zoo.samples import samples

    if paths:
        return torch.stack([read_image(path, data) for path in paths]), [], [str(path) for path in paths]
    pixels, labels = samples(data.tag)
    return pixels, labels.tolist(), [f"#{i}" for i in range(len(labels))]


def _normalised(pixels: "Tensor", data: "DatasetSpec") -> "Tensor":
    from zoo.images import normalise

    return normalise(pixels, data)


def _our_export() -> None:
    """The package index has another `export`: installed later, it overwrites our `__init__.py`, or hides a checkout."""
    import export

    if getattr(export, "PROJECT", "") != "danet-zoo":
        where = Path(export.__file__ or "").parent
        raise InputError(f"{where} is not the zoo's: `pip uninstall export`, then install danet-zoo again")


def _json(value: Any) -> int:
    print(json.dumps(value, indent=2))
    return 0
