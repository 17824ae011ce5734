"""`zoo export`: verified ONNX and NIR files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo import terminal
from zoo.cli.images import bundled_pair
from zoo.cli.networks import check_export_package, load_model, read_nir
from zoo.cli.options import (
    NIR_DT,
    Commands,
    Options,
    add_command,
    add_data,
    add_dt,
    add_formats,
    add_json,
    add_network,
    add_weights,
)
from zoo.cli.output import check_output_folder, print_json
from zoo.cli.parser import add_alias, positive
from zoo.errors import InputError
from zoo.provenance import WeightFormat

if TYPE_CHECKING:
    from export.verification import Verification
    from zoo.danet import DANet

__all__ = [
    "ExportOptions",
    "ExportedFile",
    "add_parser",
    "run",
    "write_nir_file",
    "write_onnx_file",
]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """The options of `zoo export`."""

    name: str
    formats: list[Literal["onnx", "nir"]]
    out: Path
    dialect: Literal["portable", "native"]
    form: Literal["sequence", "step"]
    outputs: Literal["counts", "trains", "none"]
    batch: int | None  # images at a time; None: any number
    weights: WeightFormat
    dt: float | None  # seconds
    data: str | None  # folder or hub id of the images for the accuracy of rounded weights
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo export`."""
    summary = "write a model as ONNX and NIR, verified layer by layer"
    parser = add_command(commands, "export", summary, ExportOptions, run)
    add_json(parser)
    add_network(parser, "name", "or a .nir file of any tool, which becomes ONNX")
    add_formats(parser, "file formats (default: onnx)", default=["onnx"])
    text = "where to write (default: here)"
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help=text)
    dialect = parser.add_argument(
        "--dialect",
        choices=("portable", "native"),
        default="portable",
        help="nodes of the NIR graph: portable, which every simulator reads (default), or native, "
        "as chips have them",
    )
    add_alias(parser, "--profile", dialect)
    parser.add_argument(
        "--form",
        choices=("sequence", "step"),
        default="sequence",
        help="sequence: ONNX of all time steps (default); step: of one time step, with the "
        "neurons' state as inputs and outputs, in NAME.step.onnx",
    )
    parser.add_argument(
        "--outputs",
        choices=("counts", "trains", "none"),
        default="counts",
        help="outputs of an ONNX file beside the logits: counts of each layer's spikes (default), "
        "whole spike trains, or none, which is fastest",
    )
    text = "ONNX of a fixed batch of N images, in NAME.batchN.onnx (default: any number of images)"
    parser.add_argument("--batch", type=positive, metavar="N", help=text)
    add_weights(parser)
    add_dt(parser)
    text = "evaluate rounded weights on the test split of this source, not on the bundled images"
    add_data(parser, text)


def run(options: ExportOptions) -> int:
    """Write verified ONNX and NIR files of a model, or the ONNX file of a NIR file."""
    check_export_package()
    check_output_folder("--out", options.out)
    if options.name.endswith(".nir"):
        return _report([_export_nir_file(options)], None, json=options.json)
    _refuse_unused(options)
    model, name = load_model(options.name, "a .nir file")
    rounded = "" if options.weights == "float32" else f".{options.weights}"
    if "onnx" in options.formats:
        path = _onnx_path(
            f"{name}{rounded}", options.out, options.form, options.outputs, options.batch
        )
        _keep_other_export(path, of_model=True)
    accuracies = None
    if options.weights != "float32":
        from export.prepare.quantize import quantize_weights

        quantized = quantize_weights(model, options.weights)
        accuracies = _measure({"float32": model, options.weights: quantized}, options.data)
        model, name = quantized, f"{name}{rounded}"
    files: list[ExportedFile] = []
    if "onnx" in options.formats:
        files.append(
            write_onnx_file(
                model,
                name,
                options.out,
                form=options.form,
                outputs=options.outputs,
                batch=options.batch,
            )
        )
    if "nir" in options.formats:
        files += write_nir_file(model, name, options.out, dialect=options.dialect)
    return _report(files, accuracies, json=options.json)


def _refuse_unused(options: ExportOptions) -> None:
    """Raise `InputError` for an option that would not change the export of a model."""
    options.only_for(NIR_DT, "dt")
    if "onnx" not in options.formats:
        purpose = "ONNX: give --to onnx too, or leave it out"
        options.only_for(purpose, "form", "outputs", "batch")
    if "nir" not in options.formats:
        options.only_for("NIR: give --to nir too, or leave it out", "dialect")
    if options.weights == "float32":
        options.only_for(
            "the accuracy of rounded weights: give --weights int8 or int8-layer too, "
            "or leave it out",
            "data",
        )


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written."""

    path: Path
    description: str  # how it was verified, or what it holds
    verification: "Verification | None"  # None for the spike trains beside a NIR file

    def to_json(self) -> dict[str, Any]:
        """Return the record that `zoo export --json` prints."""
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "verification": self.description,
            "silent": self.verification.silent if self.verification else None,
        }


@dataclass(frozen=True)
class _Accuracies:
    """Top-1 accuracies of one model in several formats of its weights."""

    top1: Mapping[str, float]  # by the format of the weights
    images: str  # which images they were measured on

    def to_json(self) -> dict[str, Any]:
        return {**self.top1, "images": self.images}

    def __str__(self) -> str:
        (_, original), (weights, rounded) = self.top1.items()
        return f"top-1 {original:.2%}, with {weights} weights {rounded:.2%}, on {self.images}"


def _report(files: "list[ExportedFile]", accuracies: _Accuracies | None, *, json: bool) -> int:
    """Print what was written, and the accuracies of rounded weights if there are any."""
    if json:
        more = accuracies.to_json() if accuracies else {}
        return print_json([file.to_json() | (more if file.verification else {}) for file in files])
    for file in files:
        print(f"{file.path} ({file.path.stat().st_size:,} bytes): {file.description}")
    if accuracies:
        print(accuracies)
    return 0


def write_onnx_file(
    model: "DANet",
    name: str,
    folder: Path,
    *,
    form: Literal["sequence", "step"] = "sequence",
    outputs: Literal["counts", "trains", "none"] = "counts",
    batch: int | None = None,
) -> ExportedFile:
    """Write the verified ONNX file of a model called `name`."""
    from export.onnx.exporter import write_onnx

    path = _onnx_path(name, folder, form, outputs, batch)
    folder.mkdir(parents=True, exist_ok=True)
    with terminal.status(f"exporting and verifying {path.name}"):
        result = write_onnx(model, path, form=form, outputs=outputs, batch=batch)
    assert result is not None  # it is None only where no verification is asked for
    return ExportedFile(path, str(result), result)


def write_nir_file(
    model: "DANet",
    name: str,
    folder: Path,
    *,
    dialect: Literal["portable", "native"] = "portable",
) -> list[ExportedFile]:
    """Write the verified NIR file of a model called `name`, and the spike trains beside it."""
    from export.nir.writer import trains_path, write_nir

    path = folder / f"{name}{'' if dialect == 'portable' else f'.{dialect}'}.nir"
    folder.mkdir(parents=True, exist_ok=True)
    with terminal.status(f"exporting and verifying {path.name}"):
        result = write_nir(model, path, bundled_pair(model), dialect=dialect)
    layers = f"{len(result.trains)} neuron layers for {result.images} images"
    trains = f"spikes of {layers}, to check a receiver with"
    return [
        ExportedFile(path, str(result), result),
        ExportedFile(trains_path(path), trains, None),
    ]


def _export_nir_file(options: ExportOptions) -> ExportedFile:
    """Write the verified ONNX file of a NIR file."""
    from export.onnx.from_nir import write_nir_onnx

    purpose = "a model of the zoo: a .nir file becomes ONNX as it is"
    options.only_for(purpose, "dialect", "outputs", "batch", "data")
    if options.formats != ["onnx"] or options.weights != "float32":
        raise InputError(
            f"{options.name} is a NIR file: it becomes ONNX, with its weights as they are"
        )
    name = Path(options.name).name.removesuffix(".nir")
    path = _onnx_path(name, options.out, options.form)
    _keep_other_export(path, of_model=False)
    graph = read_nir(options.name, options.dt)
    options.out.mkdir(parents=True, exist_ok=True)
    with terminal.status(f"exporting and verifying {path.name}"):
        result = write_nir_onnx(graph, path, name=name, form=options.form, dt=options.dt)
    return ExportedFile(path, str(result), result)


def _onnx_path(
    name: str, folder: Path, form: str, outputs: str = "counts", batch: int | None = None
) -> Path:
    """Return where the ONNX file of a network lies, with what it is in its name."""
    words = [
        "" if form == "sequence" else f".{form}",
        {"counts": "", "trains": ".trains", "none": ".logits"}[outputs],
        f".batch{batch}" if batch else "",
    ]
    return folder / f"{name}{''.join(words)}.onnx"


def _keep_other_export(path: Path, *, of_model: bool) -> None:
    """Raise `InputError` where an export of another kind would be overwritten at `path`."""
    from export.onnx.file import read_file, read_metadata

    try:
        earlier = read_metadata(read_file(path, weights=False), path)
    except InputError:  # there is none, or nothing that could be lost
        return
    if earlier.written_by_zoo and earlier.is_of_model != of_model:
        kind, other = ("a NIR file", "a model") if of_model else ("a model", "a NIR file")
        raise InputError(
            f"{path} is the export of {kind}, and would be overwritten by that of {other}: "
            "give another folder with --out"
        )


def _measure(models: "Mapping[str, DANet]", source: str | None) -> _Accuracies:
    """Measure the top-1 accuracy of each model, by the format of its weights.

    The images are the test split at `source`, or the bundled ones without it.
    """
    return _measure_on_bundled(models) if source is None else _measure_on_split(models, source)


def _measure_on_bundled(models: "Mapping[str, DANet]") -> _Accuracies:
    import torch

    from zoo.images import to_input
    from zoo.saccades import with_saccades
    from zoo.samples import samples

    first = next(iter(models.values()))
    data, steps = first.known_origin.data, first.config.steps
    try:
        pixels, labels = samples(data.images.tag)
    except InputError:
        raise InputError(
            f"what rounding costs is measured on images, and none of {data.title} are bundled: "
            "give their source, --data FOLDER"
        ) from None
    images = to_input(with_saccades(pixels, data, steps), data)
    with torch.inference_mode():
        top1 = {
            weights: int((model(images).argmax(1) == labels).sum()) / len(labels)
            for weights, model in models.items()
        }
    return _Accuracies(top1, f"{len(labels):,} bundled images of {data.title}")


def _measure_on_split(models: "Mapping[str, DANet]", source: str) -> _Accuracies:
    import torch

    from zoo.training.evaluate import count_correct
    from zoo.training.run import load_for_evaluation

    first = next(iter(models.values()))
    data = first.known_origin.data
    split = load_for_evaluation(data, "test", first.config.steps, source=source)
    data = data.stored_as(split.encoding)
    top1, images = {}, 0
    for weights, model in models.items():
        predict = torch.inference_mode()(model)
        with terminal.progress() as bar:
            advance = terminal.advance(bar, "images")
            correct, images = count_correct(predict, split, data, progress=advance)
        top1[weights] = correct / images
    return _Accuracies(top1, f"{images:,} test images of {data.title}")
