"""`zoo verify`: an export against its model, or the files of models against the manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import terminal
from zoo.cli.networks import (
    check_export_package,
    load_model,
    read_nir,
    refuse_file,
    requested_runtime,
)
from zoo.cli.options import (
    NIR_DT,
    Commands,
    RuntimeOptions,
    add_command,
    add_dt,
    add_json,
    add_network,
    add_runtime,
)
from zoo.cli.output import print_json
from zoo.errors import HubError, InputError, WeightsError

if TYPE_CHECKING:
    from export.onnx.runtime import Runtime
    from export.verification import Verification
    from zoo.manifest import FileSpec

__all__ = ["VerifyOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(RuntimeOptions):
    """The options of `zoo verify`."""

    names: list[str]
    export_file: Path | None
    dt: float | None  # seconds
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo verify`."""
    summary = "check weights against the manifest, or an export against its model"
    parser = add_command(commands, "verify", summary, VerifyOptions, run)
    add_json(parser)
    all_models = "by default all models on this machine"
    add_network(parser, "names", all_models, nargs="*", metavar="NAME")
    text = "compare this .onnx or .nir export with the one model NAME, layer by layer"
    parser.add_argument("--export", dest="export_file", type=Path, metavar="FILE", help=text)
    add_dt(parser)
    add_runtime(parser)


@dataclass(frozen=True)
class _Result:
    """The outcome of one verification."""

    checked: str  # a file or a name
    ok: bool
    text: str
    # further entries of the JSON record
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"checked": self.checked, "ok": self.ok, "result": self.text, **self.details}


def run(options: VerifyOptions) -> int:
    """Verify an export or the files of models; the exit status is 1 if one does not match."""
    if options.export_file:
        results = [_verify_export(options, options.export_file)]
    else:
        results = list(_verify_weights(options))
    if options.json:
        print_json([result.to_json() for result in results])
    else:
        print("\n".join(f"{result.checked}: {result.text}" for result in results))
    return 0 if all(result.ok for result in results) else 1


def _verify_export(options: VerifyOptions, path: Path) -> _Result:
    """Compare an export with its model, or with the NIR file that it was made of."""
    if len(options.names) != 1:
        raise InputError(
            f"--export {path} is compared with one model: "
            "name it, as in `zoo verify NAME --export FILE`"
        )
    (name,) = options.names
    if not name.endswith(".nir"):
        options.only_for(NIR_DT, "dt")
    runtime = requested_runtime(options, str(path))
    check_export_package()
    with terminal.status(f"verifying {path}"):
        if name.endswith(".nir"):
            result = _compare_with_nir(name, path, options.dt, runtime)
        else:
            result = _compare_with_model(name, path, runtime)
    return _Result(str(path), result.ok, str(result), {"silent": result.silent})


def _compare_with_nir(
    name: str, path: Path, dt: float | None, runtime: "Runtime | None"
) -> "Verification":
    from export.onnx.from_nir import verify_nir_onnx

    return verify_nir_onnx(read_nir(name, dt), path, dt=dt, runtime=runtime)


def _compare_with_model(name: str, path: Path, runtime: "Runtime | None") -> "Verification":
    from export.nir.verify import verify_nir
    from export.onnx.verify import verify_onnx

    model, _ = load_model(name)
    if path.suffix == ".nir":
        return verify_nir(model, path)
    return verify_onnx(model, path, runtime=runtime)


def _verify_weights(options: VerifyOptions) -> Iterator[_Result]:
    """Verify the files of each name, or of every model of the manifest that is on this machine."""
    from zoo.manifest import read_manifest

    options.only_for(NIR_DT, "dt")
    requested_runtime(options)
    for name in options.names:
        refuse_file(name)
    for name in options.names:
        yield _verify_model(name)
    if not options.names:
        for name in read_manifest().weights:
            try:
                yield _verify_model(name)
            except HubError as error:
                yield _Result(name, True, f"not on this machine ({error})")


def _verify_model(name: str) -> _Result:
    """Verify the files of a model. Raises `HubError` where they are not on this machine."""
    from zoo import hub, weights

    try:
        folder, files = hub.verify(name)
        weights.read_model(folder)  # raises for a tensor that is not what the model needs
    except HubError:
        raise
    except WeightsError as error:
        return _Result(name, False, str(error))
    records = {file: {"sha256": spec.sha256, "bytes": spec.bytes} for file, spec in files.items()}
    details = {"folder": str(folder), "files": records}
    return _Result(name, True, _files_in_words(name, files), details)


def _files_in_words(name: str, files: "Mapping[str, FileSpec]") -> str:
    from zoo import hub

    total = f"{len(files)} files, {sum(spec.bytes for spec in files.values()):,} bytes"
    if not hub.is_location(name):
        return f"{total}, all with the sha256 of the manifest"
    weights = [f"{file} {files[file].sha256}" for file in files if file.endswith(".safetensors")]
    pinned = (
        "as when this commit was first loaded"
        if name.startswith("hf:")
        else "nobody pinned their sha256"
    )
    return f"a whole model; {total}, {pinned}: {', '.join(weights)}"
