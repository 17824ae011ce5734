"""The command that counts and prices: energy."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import terminal
from zoo.cli.common import (
    NIR_FILE,
    asked_runtime,
    check_output,
    load_model,
    normalised,
    note,
    only_for,
    our_export,
    print_json,
    read_images,
)
from zoo.errors import ConfigError, InputError, first_line
from zoo.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from export.energy import EnergyReport, Executor
    from zoo.datasets import DatasetSpec

__all__ = ["energy"]


def energy(args: argparse.Namespace) -> int:
    """`zoo energy`: operations counted, and priced by device and convention, of one or several
    models.
    """
    our_export()
    from export.energy import parallel
    from export.energy.devices import find_devices
    from export.energy.output import html

    everything = args.convention == "all"
    if not any(model.endswith(".nir") for model in args.models):
        only_for(args, NIR_FILE, "dt")
        only_for(args, "a .nir file: a model and its exports know their own T", "steps")
    find_devices(args.profile)  # what cannot be is said before anything runs
    check_output("--out", args.out, folder=True)
    first = parallel.processes()[0] == 0  # of the processes that torchrun starts, one speaks
    reports = [
        _report(model, args, "exact" if everything else args.convention, speak=first)
        for model in args.models
    ]
    if not first:
        return 0
    files: dict[Path, str] = {}
    if args.out:
        names = _file_names(reports)
        for name, report in zip(names, reports, strict=True):
            files[args.out / f"{name}.json"] = (
                json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
            )
            files[args.out / f"{name}.csv"] = report.to_csv()
        files[args.out / f"{names[0] if len(names) == 1 else 'energy'}.html"] = html.render(reports)
        _write(files)
    if args.json:
        for report in reports:
            for text in report.notes:
                note(f"{report.source.name}: {text}")
        return print_json(
            reports[0].to_json() if len(reports) == 1 else [report.to_json() for report in reports]
        )
    _print(reports, everything)
    for path in files:
        print(f"written: {path}")
    return 0


def _print(reports: "list[EnergyReport]", everything: bool) -> None:
    from export.energy.output import terminal as tables

    console = terminal.console()
    for report in reports:
        report.print(console)
        if everything:
            tables.conventions(report, console)
    if len(reports) > 1:
        tables.several(reports, console)


def _report(
    model: str, args: argparse.Namespace, convention: str, *, speak: bool
) -> "EnergyReport":
    from export.energy import estimate, executor

    options: dict[str, Any] = {"convention": convention, "profile": args.profile}
    runtime = asked_runtime(args, *args.models)
    if args.input:
        if not model.endswith(".nir") or args.images or args.data:
            raise InputError("--input is for a .nir file, and in place of --images and --data")
        array = _array(args.input)
        run = executor(Path(model), steps=args.steps, like=array, dt=args.dt)
        return estimate(
            run, array[: args.first] if run.entry.static else array[:, : args.first], **options
        )
    file = model.endswith((".onnx", ".nir"))
    options_of_graph = {"steps": args.steps, "dt": args.dt} if model.endswith(".nir") else {}
    run = executor(
        Path(model) if file else load_model(model)[0], runtime=runtime, **options_of_graph
    )
    if run.source.data is None:
        raise InputError(
            f"{model} does not say what it reads: give it an array with --input FILE.npy"
        )
    batches, images = _batches(run, run.source.data, args, speak=speak)
    with terminal.progress() if speak else nullcontext() as bar:
        advance = terminal.advance(bar, "images") if bar else None
        return estimate(
            run,
            batches,
            progress=(lambda done: advance(done, images)) if advance else None,
            **options,
        )


def _batches(
    run: "Executor", data: "DatasetSpec", args: argparse.Namespace, *, speak: bool
) -> "tuple[Iterator[tuple[Tensor, Tensor | None]], int]":
    """This process's part of the images, normalised, with their labels; and how many there are."""
    import torch

    from export.energy import parallel
    from zoo.training.evaluate import time_first

    rank, ranks = parallel.processes()
    if not args.data:
        pixels, known, titles, changes = read_images(args.images or [], data)
        for title, done in zip(titles, changes, strict=True):
            if done and speak:
                # standard output is the report's
                print(f"{title}: {', '.join(done)}", file=sys.stderr)
        labels = torch.tensor(known) if known else None
        images = min(len(pixels), args.first or len(pixels))
        parts = [slice(i, min(i + run.batch, images)) for i in range(0, images, run.batch)][
            rank::ranks
        ]
        return (
            (normalised(pixels[part], data), labels[part] if labels is not None else None)
            for part in parts
        ), images
    if args.images:
        raise InputError("--images and --data are two sources of images: give one of them")
    from zoo.training.run import load_for_evaluation

    split = load_for_evaluation(data, "test", run.source.steps, source=args.data)
    if args.first is None:
        batches = split.evaluation(run.batch, rank, ranks)
    else:  # batches are dealt to the processes
        batches = islice(_first(split.evaluation(run.batch), args.first), rank, None, ranks)
    images = min(split.images, args.first or split.images)
    return ((time_first(normalised(pixels, data)), labels) for pixels, labels in batches), images


def _first(
    batches: "Iterator[tuple[Tensor, Tensor]]", images: int
) -> "Iterator[tuple[Tensor, Tensor]]":
    for pixels, labels in batches:
        yield pixels[:images], labels[:images]
        images -= len(labels)
        if images <= 0:
            return


def _array(path: Path) -> "Tensor":
    """An array of numbers from a `.npy` file."""
    import numpy as np
    import torch

    try:
        values = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InputError(
            f"{path} is not an array of numbers in a .npy file: {first_line(error)}"
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise InputError(f"{path} is not an array of numbers in a .npy file")
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _file_names(reports: "list[EnergyReport]") -> list[str]:
    """A name for each report's files: the network's, and who ran it where several ran the same."""
    names = [report.source.name.replace("/", "_") for report in reports]
    engines = [report.source.engine.split()[0].lower() for report in reports]
    found = [
        name if names.count(name) == 1 else f"{name}.{engine}"
        for name, engine in zip(names, engines, strict=True)
    ]
    if len(set(found)) < len(found):
        raise ConfigError(f"{max(found, key=found.count)} is given twice: give every model once")
    return found


def _write(files: dict[Path, str]) -> None:
    """All of them, or none; of two commands that write the same, one wins."""
    with ExitStack() as renamed:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            renamed.enter_context(replacing(path)).write_text(text, encoding="utf-8")
