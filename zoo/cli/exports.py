"""Commands about what a model becomes: export, verify, check."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
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
    read_nir,
)
from zoo.errors import HubError, InputError, WeightsError, ZooError

if TYPE_CHECKING:
    from nir import NIRGraph
    from torch import Tensor

    from export.nir.exporter import Profile
    from export.onnx.exporter import Form, Outputs
    from export.onnx.runtime import Runtime
    from export.verification import Verification
    from zoo.danet import DANet

__all__ = ["check", "export", "verify", "write_exports"]


def export(args: argparse.Namespace) -> int:
    """`zoo export`: write verified ONNX and NIR files."""
    our_export()
    check_output("--out", args.out, folder=True)
    if args.name.endswith(".nir"):
        return _export_graph(args)
    only_for(args, NIR_FILE, "dt")
    if "onnx" not in args.to:
        only_for(args, "ONNX: give --to onnx too, or leave it out", "form", "outputs", "batch")
    if "nir" not in args.to:
        only_for(args, "NIR: give --to nir too, or leave it out", "profile")
    if args.weights == "float32":
        only_for(
            args,
            "the accuracy of rounded weights: give --weights int8 or int8-layer too, or leave it out",
            "data",
        )
    model, name = load_model(args.name)
    accuracy: dict[str, Any] = {}
    if args.weights != "float32":
        from export.prepare.quantize import quantize_weights

        unrounded, model, name = (
            model,
            quantize_weights(model, args.weights),
            f"{name}.{args.weights}",
        )
        accuracy = _accuracies({"float32": unrounded, args.weights: model}, args.data)
    written: list[dict[str, Any]] = []
    options = {
        "profile": args.profile,
        "form": args.form,
        "outputs": args.outputs,
        "batch": args.batch,
    }
    files = write_exports(model, name, args.to, args.out, **options)
    for path, what in files.items():
        more = {} if path.name.endswith(".trains.nir") else accuracy
        written.append(_written(path, what) | more)
    if args.json:
        return print_json(written)
    for item in written:
        print(f"{item['file']} ({item['bytes']:,} bytes): {item['verification']}")
    if accuracy:
        print(
            f"top-1 {accuracy['float32']:.2%}, with {args.weights} weights {accuracy[args.weights]:.2%}, on {accuracy['images']}"
        )
    return 0


def _written(path: Path, what: "Verification | str") -> dict[str, Any]:
    """A file that was written, and how it was verified; `silent` if no neuron fired while it was,
    None for what is not verified.
    """
    silent = None if isinstance(what, str) else what.silent
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "verification": str(what),
        "silent": silent,
    }


def _export_graph(args: argparse.Namespace) -> int:
    """A NIR file of anyone as ONNX."""
    from export.onnx.from_nir import write_nir_onnx

    only_for(
        args,
        "a model of the zoo: a .nir file becomes ONNX as it is",
        "profile",
        "outputs",
        "batch",
        "data",
    )
    if args.to != ["onnx"] or args.weights != "float32":
        raise InputError(
            f"{args.name} is a NIR file: it becomes ONNX, with its weights as they are"
        )
    source = Path(args.name)
    name = source.name.removesuffix(".nir")
    path = args.out / (f"{name}.onnx" if args.form == "sequence" else f"{name}.{args.form}.onnx")
    graph = read_nir(args.name, args.dt)
    args.out.mkdir(parents=True, exist_ok=True)
    with terminal.status(f"exporting and verifying {path.name}"):
        result = write_nir_onnx(graph, path, name=name, form=args.form, dt=args.dt)
    if args.json:
        return print_json([_written(path, result)])
    print(f"{path} ({path.stat().st_size:,} bytes): {result}")
    return 0


def write_exports(
    model: "DANet",
    name: str,
    formats: list[str],
    out: Path,
    *,
    profile: "Profile" = "portable",
    form: "Form" = "sequence",
    outputs: "Outputs" = "counts",
    batch: int | None = None,
) -> "dict[Path, Verification | str]":
    """The files of each format, `onnx` or `nir`, in the folder `out`, and how each was verified."""
    out.mkdir(parents=True, exist_ok=True)
    written: dict[Path, Verification | str] = {}
    if "onnx" in formats:
        from export.onnx.exporter import write_onnx

        kind = ("" if form == "sequence" else f".{form}") + (f".batch{batch}" if batch else "")
        path = out / f"{name}{kind}.onnx"
        with terminal.status(f"exporting and verifying {path.name}"):
            verification = write_onnx(model, path, form=form, outputs=outputs, batch=batch)
        assert verification is not None  # or it was not asked to verify
        written[path] = verification
    if "nir" in formats:
        from export.nir.writer import trains_path, write_nir

        path = out / f"{name}.nir"
        with terminal.status(f"exporting and verifying {path.name}"):
            result = write_nir(model, path, _two_images(model), profile=profile)
        written[path] = result
        layers = f"{len(result.trains)} neuron layers for {result.images} images"
        written[trains_path(path)] = f"spikes of {layers}, to check a receiver with"
    return written


def _accuracies(models: "dict[str, DANet]", source: str | None) -> dict[str, Any]:
    """Top-1 of each model on the test split at `source`, or without one on the bundled images; and
    which images they were.
    """
    import torch

    from zoo.samples import samples
    from zoo.training.evaluate import count_correct
    from zoo.training.run import load_for_evaluation

    first = next(iter(models.values()))
    data, found = first.known_origin.data, {}
    if source is None:
        pixels, labels = samples(data.tag)
        x, seen = normalised(pixels, data), len(labels)
    else:
        split = load_for_evaluation(data, "test", first.config.steps, source=source)
        data = data.stored_as(split.encoding)
    for name, model in models.items():
        predict = torch.inference_mode()(model)
        if source is None:
            right = int((predict(x).argmax(1) == labels).sum())
        else:
            with terminal.progress() as bar:
                right, seen = count_correct(
                    predict, split, data, progress=terminal.advance(bar, "images")
                )
        found[name] = right / seen
    return found | {
        "images": f"{seen:,} {'bundled' if source is None else 'test'} images of {data.title}"
    }


def _two_images(model: "DANet") -> "Tensor | None":
    """Of those that come with the zoo; None where none do."""
    from zoo.samples import samples

    data = model.known_origin.data
    try:
        pixels, _ = samples(data.tag)
    except InputError:
        return None
    return (
        normalised(pixels[:2], data)
        if pixels.shape[1:] == (data.channels, data.size, data.size)
        else None
    )


def verify(args: argparse.Namespace) -> int:
    """`zoo verify`: an export against its model layer by layer, or the files of models against the
    manifest.
    """
    if args.export and len(args.names) != 1:
        raise InputError(
            f"--export {args.export} is compared with one model: name it, as in `zoo verify NAME --export FILE`"
        )
    if not (args.export and args.names[0].endswith(".nir")):
        only_for(args, NIR_FILE, "dt")
    runtime = asked_runtime(args, str(args.export or ""))
    if not args.export:
        _refuse_graphs(args.names)
    results = (
        [_verify_export(args.names[0], args.export, runtime, args.dt)]
        if args.export
        else _verify_files(args.names)
    )
    if args.json:
        print_json(results)
    else:
        print("\n".join(f"{result['checked']}: {result['result']}" for result in results))
    return 0 if all(result["ok"] for result in results) else 1


def _verify_export(
    name: str, path: Path, runtime: "Runtime | None", dt: float | None
) -> dict[str, Any]:
    our_export()
    from export.nir.verify import verify_nir
    from export.onnx.verify import verify_onnx

    with terminal.status(f"verifying {path}"):
        if name.endswith(".nir"):
            from export.onnx.from_nir import verify_nir_onnx

            result: Verification = verify_nir_onnx(read_nir(name, dt), path, dt=dt, runtime=runtime)
        else:
            model, _ = load_model(name)
            result = (
                verify_nir(model, path)
                if path.suffix == ".nir"
                else verify_onnx(model, path, runtime=runtime)
            )
    return {"checked": str(path), "ok": result.ok, "silent": result.silent, "result": str(result)}


def _refuse_graphs(names: list[str]) -> None:
    for name in names:
        if name.endswith(".nir"):
            raise InputError(
                f"{name} is a NIR file, which the manifest does not know: give its ONNX form with --export FILE.onnx"
            )


def _verify_files(names: list[str]) -> list[dict[str, Any]]:
    """Of each name, or of every model of the manifest that is on this machine."""
    from zoo import hub, weights
    from zoo.manifest import read_manifest

    results: list[dict[str, Any]] = []
    for name in names or read_manifest().weights:
        try:
            folder, files = hub.verify(name)
            weights.read_model(folder)  # raises for a tensor that is not what the model needs
        except HubError as error:
            if names:
                raise
            results.append(
                {"checked": name, "ok": True, "result": f"not on this machine ({error})"}
            )
        except WeightsError as error:
            results.append({"checked": name, "ok": False, "result": str(error)})
        else:
            listed = {
                file: {"sha256": spec.sha256, "bytes": spec.bytes} for file, spec in files.items()
            }
            total = f"{len(files)} files, {sum(spec.bytes for spec in files.values()):,} bytes"
            text = f"{total}, all with the sha256 of the manifest"
            if hub.is_location(name):
                shown = ", ".join(
                    f"{file} {spec.sha256}"
                    for file, spec in files.items()
                    if file.endswith(".safetensors")
                )
                known = (
                    "as when this commit was first loaded"
                    if name.startswith("hf:")
                    else "nobody pinned their sha256"
                )
                text = f"a whole model; {total}, {known}: {shown}"
            results.append(
                {
                    "checked": name,
                    "ok": True,
                    "result": text,
                    "folder": str(folder),
                    "files": listed,
                }
            )
    return results


def check(args: argparse.Namespace) -> int:
    """`zoo check`: a network against the published limits of chips; exit status 1 if it does not
    fit one.
    """
    our_export()
    from export.targets.checker import check as fit
    from export.targets.limits import targets
    from export.targets.output import html
    from export.targets.output import terminal as tables
    from zoo.files import write_text
    from zoo.silence import NO_SPIKES, assumed_dt

    check_output("--html", args.html, folder=False)
    network = _checked_network(args)
    with terminal.status(f"checking {network.name}"):
        chips = targets() if args.target == "all" else [args.target]
        checks = [fit(network.graph, target, dt=args.dt) for target in chips]
    if args.html:
        notes = [NO_SPIKES] if network.silent else []
        notes += [assumed_dt(checks[0].assumed_dt)] if checks[0].assumed_dt else []
        head = [
            f"{network.about[0].upper()}{network.about[1:]}.",
            *(f"Note: {text}." for text in notes),
        ]
        write_text(args.html, html.render(checks, network.name, head))
    if network.silent:
        note(f"{network.name}: {NO_SPIKES}")
    if args.json:
        said = {
            "weights": network.weights,
            "precision": network.precision,
            "silent": network.silent,
        }
        print_json(
            {
                "name": network.name,
                "about": network.about,
                **said,
                "checks": [c.to_json() for c in checks],
            }
        )
    else:
        print(f"{network.name}: {network.about}")
        for c in checks:
            tables.render(c, terminal.console())
        if args.html:
            print(f"written to {args.html}")
    return 0 if all(c.fits for c in checks) else 1


@dataclass(frozen=True)
class _CheckedNetwork:
    """What `zoo check` compares with chips."""

    graph: "NIRGraph"
    name: str
    weights: str  # trained, converted, random or unknown
    precision: str
    # whether no neuron fires on a few images or noise; None where it cannot be run
    silent: bool | None

    @property
    def about(self) -> str:
        """Whose weights, in words."""
        from zoo.provenance import provenance_in_words

        return provenance_in_words(self.weights, self.precision)


def _checked_network(args: argparse.Namespace) -> _CheckedNetwork:
    """The network of a `.nir` file, a name or a folder."""
    if args.name.endswith(".nir"):
        if args.weights != "float32":
            raise InputError(
                f"--weights {args.weights} rounds a model: give its name, or the .nir file as it is to be checked"
            )
        from zoo.provenance import provenance_of_digest

        graph = read_nir(args.name, args.dt)
        meta = graph.metadata
        weights = provenance_of_digest(
            str(meta["weights_sha256"]) if "weights_sha256" in meta else None
        )
        precision = str(meta.get("precision", "as stored"))
        return _CheckedNetwork(
            graph, Path(args.name).name, weights, precision, _silent_graph(graph, args.dt)
        )
    only_for(args, NIR_FILE, "dt")
    from export.nir.exporter import to_nir
    from export.prepare.quantize import quantize_weights
    from zoo.hub import is_location
    from zoo.provenance import provenance_of

    untrained = not is_location(args.name) and zoo.info(args.name).weights is None
    model = quantize_weights(
        zoo.create(args.name).eval() if untrained else zoo.load(args.name), args.weights
    )
    graph = to_nir(model, profile="native")
    return _CheckedNetwork(
        graph,
        model.known_origin.name,
        provenance_of(model.known_origin),
        model.known_origin.precision,
        _silent_model(model),
    )


def _silent_model(model: "DANet") -> bool:
    """Whether no neuron fires on two bundled images, or on noise where none are bundled."""
    import torch

    from export.prepare.fold import still_image
    from zoo.silence import watch_spikes

    images, fired = _two_images(model), watch_spikes(model)
    if images is None:
        images = torch.randn(
            still_image(model, 1).shape, generator=torch.Generator().manual_seed(0)
        )
    with torch.inference_mode():
        model(images)
    return not fired()


def _silent_graph(graph: "NIRGraph", dt: float | None) -> bool | None:
    """Whether no neuron fires on noise, as `export.onnx.from_nir` verifies with; None for a graph
    that cannot be run.
    """
    from export.onnx.from_nir import noise_spikes
    from zoo.silence import is_silent

    try:
        return is_silent(noise_spikes(graph, dt=dt))
    except ZooError:
        return None
