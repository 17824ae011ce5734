"""`zoo energy`: operations, counted on images and priced.

Shapes: `N` images, `B` images of a batch, `T` time steps.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import terminal
from zoo.cli.images import Images, read_images
from zoo.cli.networks import check_export_package, load_model, requested_runtime
from zoo.cli.options import (
    NIR_DT,
    Commands,
    RuntimeOptions,
    add_command,
    add_data,
    add_dt,
    add_json,
    add_network,
    add_runtime,
    add_sensor,
)
from zoo.cli.output import check_output_folder, note, print_json
from zoo.cli.parser import add_alias, positive
from zoo.errors import ConfigError, InputError
from zoo.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from export.energy import EnergyReport, Executor
    from zoo.datasets import DatasetSpec
    from zoo.recordings import Sensor

    Batches = Iterator[tuple[Tensor, Tensor | None]]

__all__ = ["EnergyOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(RuntimeOptions):
    """The options of `zoo energy`."""

    models: list[str]
    images: list[Path]
    sensor: "Sensor | None"
    data: str | None  # folder or hub id of the test split
    first: int | None  # images to count on; None: all
    input: Path | None  # .npy file with the input of a .nir file
    steps: int | None  # T of a .nir file that does not give it
    dt: float | None  # seconds
    convention: str  # or all
    devices: list[str]  # names and .toml files; empty: all that are known
    out: Path | None
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo energy`."""
    summary = "count the operations of each layer on real images and price them"
    parser = add_command(commands, "energy", summary, EnergyOptions, run)
    add_json(parser)
    files = "or an exported .onnx file, or a .nir file of any tool"
    add_network(parser, "models", files, nargs="+", metavar="MODEL")
    text = "image files, or recordings of events, to count on (default: the bundled images)"
    parser.add_argument("--images", nargs="+", type=Path, default=[], metavar="FILE", help=text)
    add_sensor(parser)
    add_data(parser, "count on the test split of this source")
    text = "count on the first N images alone"
    parser.add_argument("--first", type=positive, metavar="N", help=text)
    text = "input of a .nir file of another tool: images [N, ...], or frames [T, N, ...]"
    parser.add_argument("--input", type=Path, metavar="FILE.npy", help=text)
    text = "number of time steps of a .nir file that does not give it"
    parser.add_argument("--steps", type=positive, metavar="T", help=text)
    add_dt(parser)
    text = "exact (default), spikformer, sew, syops, lemaire, or all"
    parser.add_argument("--convention", default="exact", metavar="NAME", help=text)
    device = parser.add_argument(
        "--device",
        dest="devices",
        nargs="+",
        default=[],
        metavar="NAME",
        help="devices that price the operations, or .toml files of your own (default: all devices)",
    )
    add_alias(parser, "--profile", device)
    text = "also write MODEL.json, MODEL.csv and a page for a browser to this folder"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    add_runtime(parser)


def run(options: EnergyOptions) -> int:
    """Print and write the operations of models, priced by device and convention."""
    check_export_package()
    from export.energy import parallel
    from export.energy.devices import find_devices

    if not any(model.endswith(".nir") for model in options.models):
        options.only_for(NIR_DT, "dt")
        options.only_for("a .nir file: a model and its exports know their own T", "steps")
    find_devices(options.devices)  # refuses an unknown device before anything runs
    check_output_folder("--out", options.out)
    is_first = parallel.processes()[0] == 0
    reports = [_report(model, options, verbose=is_first) for model in options.models]
    if not is_first:  # of the processes that torchrun starts, only the first prints and writes
        return 0
    files = _render(reports, options.out) if options.out else {}
    _write(files)
    if options.json:
        for report in reports:
            for text in report.notes:
                note(f"{report.source.name}: {text}")
        values = [report.to_json() for report in reports]
        return print_json(values[0] if len(values) == 1 else values)
    _print(reports, all_conventions=options.convention == "all")
    for path in files:
        print(f"written: {path}")
    return 0


def _print(reports: "list[EnergyReport]", *, all_conventions: bool) -> None:
    from export.energy.output import terminal as tables

    console = terminal.console()
    for report in reports:
        report.print(console)
        if all_conventions:
            tables.conventions(report, console)
    if len(reports) > 1:
        tables.several(reports, console)


def _report(model: str, options: EnergyOptions, *, verbose: bool) -> "EnergyReport":
    """Count one model; with `verbose`, show a bar and how images were changed."""
    from export.energy import estimate

    if options.input:
        return _report_on_array(model, options, options.input)
    executor = _executor(model, options)
    if executor.source.data is None:
        raise InputError(
            f"{model} does not say what it reads: give it an array with --input FILE.npy"
        )
    data = executor.source.data
    batches, images = _batches(executor, data, options, verbose=verbose)
    images_from = f"{'test' if options.data else 'bundled'} images of {data.title}"
    if options.images:
        images_from = "image files given"
    with terminal.progress() if verbose else nullcontext() as bar:
        advance = terminal.advance(bar, "images") if bar else None
        report = estimate(
            executor,
            batches,
            convention=_counted_convention(options),
            device=options.devices,
            progress=(lambda done: advance(done, images)) if advance else None,
        )
    return replace(report, images_from=images_from, command=options.command_line)


def _report_on_array(model: str, options: EnergyOptions, path: Path) -> "EnergyReport":
    """Count a `.nir` file on the images or frames of a `.npy` file."""
    from export.energy import estimate, executor

    requested_runtime(options, *options.models)  # refuses the options of a runtime
    if not model.endswith(".nir") or options.images or options.data:
        raise InputError("--input is for a .nir file, and in place of --images and --data")
    array = _read_array(path)
    network = executor(Path(model), steps=options.steps, like=array, dt=options.dt)
    # without a time axis [N, ...], or with one [T, N, ...]
    first = array[: options.first] if network.entry.static else array[:, : options.first]
    convention = _counted_convention(options)
    report = estimate(network, first, convention=convention, device=options.devices)
    return replace(report, images_from=f"inputs of {path.name}", command=options.command_line)


def _counted_convention(options: EnergyOptions) -> str:
    """Return the convention of the report itself, to which `all` adds a table of the others."""
    return "exact" if options.convention == "all" else options.convention


def _executor(model: str, options: EnergyOptions) -> "Executor":
    """Return the executor of a `.nir` or `.onnx` file, a name or a folder."""
    from export.energy import executor

    runtime = requested_runtime(options, *options.models)
    if model.endswith(".nir"):
        return executor(Path(model), steps=options.steps, dt=options.dt, runtime=runtime)
    if model.endswith(".onnx"):
        return executor(Path(model), runtime=runtime)
    return executor(load_model(model)[0], runtime=runtime)


def _batches(
    executor: "Executor", data: "DatasetSpec", options: EnergyOptions, *, verbose: bool
) -> "tuple[Batches, int]":
    """Return this process's batches of images, normalised, and the number of all images."""
    if options.data:
        if options.images:
            raise InputError("--images and --data are two sources of images: give one of them")
        return _split_batches(executor, data, options.data, options.first)
    images = read_images(options.images, data, executor.source.steps, sensor=options.sensor)
    if verbose:
        _print_changes(images)
    return _image_batches(executor, data, images, options.first)


def _print_changes(images: Images) -> None:
    """Print on stderr how image files were changed: standard output belongs to the report."""
    for title, changes in zip(images.titles, images.changes, strict=True):
        if changes:
            print(f"{title}: {', '.join(changes)}", file=sys.stderr)


def _image_batches(
    executor: "Executor", data: "DatasetSpec", images: Images, first: int | None
) -> "tuple[Batches, int]":
    import torch

    from export.energy import parallel
    from zoo.images import to_input

    rank, ranks = parallel.processes()
    pixels = images.pixels[:first]
    labels = torch.tensor(images.labels[:first]) if images.labels else None
    starts = range(0, len(pixels), executor.batch)[rank::ranks]

    def batches() -> "Batches":
        for start in starts:
            batch = slice(start, start + executor.batch)
            yield to_input(pixels[batch], data), None if labels is None else labels[batch]

    return batches(), len(pixels)


def _split_batches(
    executor: "Executor", data: "DatasetSpec", source: str, first: int | None
) -> "tuple[Batches, int]":
    from export.energy import parallel
    from zoo.images import to_input
    from zoo.training.run import load_for_evaluation

    rank, ranks = parallel.processes()
    split = load_for_evaluation(data, "test", executor.source.steps, source=source)
    if first is None:
        parts = split.evaluation(executor.batch, rank, ranks)
    else:  # whole batches are dealt to the processes, so that together they see the first images
        parts = islice(_first_images(split.evaluation(executor.batch), first), rank, None, ranks)
    batches = ((to_input(pixels, data), labels) for pixels, labels in parts)
    return batches, min(split.images, first or split.images)


def _first_images(
    batches: "Iterator[tuple[Tensor, Tensor]]", images: int
) -> "Iterator[tuple[Tensor, Tensor]]":
    """Yield batches until they hold so many images, the last one cut."""
    for pixels, labels in batches:
        yield pixels[:images], labels[:images]
        images -= len(labels)
        if images <= 0:
            return


def _read_array(path: Path) -> "Tensor":
    """Read an array of numbers from a `.npy` file: as float32, or whole numbers as int64."""
    import numpy as np
    import torch

    try:
        values = np.load(path, allow_pickle=False)
    except ValueError:  # whose text advises to unpickle the file
        raise InputError(f"{path} is not an array of numbers in a .npy file") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        raise InputError(f"{path} is not an array of numbers in a .npy file")
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


def _render(reports: "list[EnergyReport]", folder: Path) -> dict[Path, str]:
    """Return the text of every file that `--out` asks for."""
    from export.energy.output import html

    files: dict[Path, str] = {}
    names = _file_names(reports)
    for name, report in zip(names, reports, strict=True):
        values = json.dumps(report.to_json(), indent=2, allow_nan=False)
        files[folder / f"{name}.json"] = f"{values}\n"
        files[folder / f"{name}.csv"] = report.to_csv()
    page = names[0] if len(names) == 1 else "energy"
    return files | {folder / f"{page}.html": html.render(reports)}


def _file_names(reports: "list[EnergyReport]") -> list[str]:
    """Return a file name for each report: its network's, with the engine where several share it."""
    networks = [report.source.name.replace("/", "_") for report in reports]
    engines = [report.source.engine.split()[0].lower() for report in reports]
    names = [
        network if networks.count(network) == 1 else f"{network}.{engine}"
        for network, engine in zip(networks, engines, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ConfigError(f"{max(names, key=names.count)} is given twice: give every model once")
    return names


def _write(files: Mapping[Path, str]) -> None:
    """Write all of the files or none; of two commands that write the same ones, one wins."""
    with ExitStack() as unfinished:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.enter_context(replacing(path)).write_text(text, encoding="utf-8")
