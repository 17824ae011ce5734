"""Commands about what a model becomes: export, verify, check."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo import terminal
from zoo.cli.common import asked_runtime, load_model, normalised, our_export, print_json
from zoo.errors import HubError, InputError, WeightsError

if TYPE_CHECKING:
    from nir import NIRGraph
    from torch import Tensor

    from export.nir import Profile
    from export.onnx import Form, Outputs
    from export.quantise import Precision
    from export.runtime import Runtime
    from zoo.danet import DANet

__all__ = ["check", "export", "verify", "write_exports"]


def export(args: argparse.Namespace) -> int:
    """`zoo export`: write verified ONNX and NIR files."""
    our_export()
    if args.name.endswith(".nir"):
        return _export_graph(args)
    model, name = load_model(args.name)
    accuracy = {}
    if args.weights != "float32":
        from export.quantise import rounded

        unrounded, model, name = model, rounded(model, args.weights), f"{name}.{args.weights}"
        accuracy = _accuracies({"float32": unrounded, args.weights: model}, args.data)
    written: list[dict[str, Any]] = []
    files = write_exports(model, name, args.to, args.out, profile=args.profile, form=args.form, outputs=args.outputs)
    for path, what in files.items():
        more = {} if path.name.endswith(".trains.nir") else accuracy
        written.append({"file": str(path), "bytes": path.stat().st_size, "verification": what} | more)
    if args.json:
        return print_json(written)
    for item in written:
        print(f"{item['file']} ({item['bytes']:,} bytes): {item['verification']}")
    if accuracy:
        print(f"top-1 {accuracy['float32']:.2%}, with {args.weights} weights {accuracy[args.weights]:.2%}, on {accuracy['images']}")
    return 0


def _export_graph(args: argparse.Namespace) -> int:
    """A NIR file of anyone as ONNX."""
    from export.graph import read_graph
    from export.nir_onnx import write_nir_onnx

    if args.to != ["onnx"] or args.weights != "float32":
        raise InputError(f"{args.name} is a NIR file: it becomes ONNX, with its weights as they are")
    source = Path(args.name)
    name = source.name.removesuffix(".nir")
    path = args.out / (f"{name}.onnx" if args.form == "sequence" else f"{name}.{args.form}.onnx")
    graph = read_graph(source)
    args.out.mkdir(parents=True, exist_ok=True)
    with terminal.status(f"exporting and verifying {path.name}"):
        result = write_nir_onnx(graph, path, name=name, form=args.form)
    if args.json:
        return print_json([{"file": str(path), "bytes": path.stat().st_size, "verification": str(result)}])
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
) -> dict[Path, str]:
    """The files of each format, `onnx` or `nir`, in the folder `out`, and how each was verified."""
    out.mkdir(parents=True, exist_ok=True)
    written: dict[Path, str] = {}
    if "onnx" in formats:
        from export.onnx import write_onnx

        path = out / (f"{name}.onnx" if form == "sequence" else f"{name}.{form}.onnx")
        with terminal.status(f"exporting and verifying {path.name}"):
            written[path] = str(write_onnx(model, path, form=form, outputs=outputs))
    if "nir" in formats:
        from export.nir_file import trains_path, write_nir

        path = out / f"{name}.nir"
        with terminal.status(f"exporting and verifying {path.name}"):
            result = write_nir(model, path, _two_images(model), profile=profile)
        written[path] = str(result)
        layers = f"{len(result.trains)} neuron layers for {result.images} images"
        written[trains_path(path)] = f"spikes of {layers}, to check a receiver with"
    return written


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
        x, seen = normalised(pixels, data), len(labels)
    else:
        from zoo.training.config import Recipe

        split = load_data(replace(Recipe.load(data.tag), source=source), "test", first.config.steps)
        data = data.found(split.encoding)
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
    data = model.origin.data
    try:
        pixels, _ = samples(data.tag)
    except InputError:
        return None
    return normalised(pixels[:2], data) if pixels.shape[1:] == (data.channels, data.size, data.size) else None


def verify(args: argparse.Namespace) -> int:
    """`zoo verify`: an export against its model layer by layer, or the files of models against the manifest."""
    if args.export and len(args.names) != 1:
        raise InputError(f"--export {args.export} is compared with one model: name it, as in `zoo verify NAME --export FILE`")
    runtime = asked_runtime(args, str(args.export or ""))
    results = [_verify_export(args.names[0], args.export, runtime)] if args.export else _verify_files(args.names)
    if args.json:
        print_json(results)
    else:
        print("\n".join(f"{result['checked']}: {result['result']}" for result in results))
    return 0 if all(result["ok"] for result in results) else 1


def _verify_export(name: str, path: Path, runtime: "Runtime | None") -> dict[str, Any]:
    our_export()
    from export.verify.nir import verify_nir
    from export.verify.onnx import verify_onnx

    with terminal.status(f"verifying {path}"):
        if name.endswith(".nir"):
            from export.graph import read_graph
            from export.nir_onnx import verify_nir_onnx

            result = verify_nir_onnx(read_graph(Path(name)), path, runtime=runtime)
        else:
            model, _ = load_model(name)
            result = verify_nir(model, path) if path.suffix == ".nir" else verify_onnx(model, path, runtime=runtime)
    return {"checked": str(path), "ok": result.ok, "result": str(result)}


def _verify_files(names: list[str]) -> list[dict[str, Any]]:
    """Of each name, or of every model of the manifest that is on this machine."""
    from zoo import hub, weights
    from zoo.names import manifest

    results: list[dict[str, Any]] = []
    for name in names or manifest().weights:
        try:
            folder, files = hub.verify(name)
            weights.read_model(folder)  # raises for a tensor that is not what the model needs
        except HubError as error:
            if names:
                raise
            results.append({"checked": name, "ok": True, "result": f"not on this machine ({error})"})
        except WeightsError as error:
            results.append({"checked": name, "ok": False, "result": str(error)})
        else:
            listed = {file: {"sha256": spec.sha256, "bytes": spec.bytes} for file, spec in files.items()}
            total = f"{len(files)} files, {sum(spec.bytes for spec in files.values()):,} bytes"
            text = f"{total}, all with the sha256 of the manifest"
            if hub.is_place(name):
                shown = ", ".join(f"{file} {spec.sha256}" for file, spec in files.items() if file.endswith(".safetensors"))
                known = "as when this commit was first loaded" if name.startswith("hf:") else "nobody pinned their sha256"
                text = f"a whole model; {total}, {known}: {shown}"
            results.append({"checked": name, "ok": True, "result": text, "folder": str(folder), "files": listed})
    return results


def check(args: argparse.Namespace) -> int:
    """`zoo check`: a network against the published limits of chips; exit status 1 if it does not fit one."""
    our_export()
    from export.targets import check as fit
    from export.targets import targets, to_html

    graph, name, about = _native_graph(args.name, args.weights)
    with terminal.status(f"checking {name}"):
        checks = [fit(graph, target) for target in (targets() if args.target == "all" else [args.target])]
    if args.html:
        args.html.write_text(to_html(checks, name), encoding="utf-8")
    if args.json:
        print_json({"name": name, "about": about, "checks": [c.to_json() for c in checks]})
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
    from zoo.hub import is_place

    untrained = not is_place(name) and zoo.info(name).weights is None
    model = zoo.create(name).eval() if untrained else zoo.load(name)
    assert model.origin is not None
    about = f"{'random' if untrained else 'trained'} weights, {precision}"
    return to_nir(rounded(model, precision), profile="native"), model.origin.name, about
