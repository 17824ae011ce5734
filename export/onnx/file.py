"""ONNX graphs as files: verified before they get their name, and refused in one line if damaged.

danet50-t4.in1k.onnx         the graph, and up to 2 GB of weights
danet50-t4.in1k.onnx.data    more than that: the weights, beside the graph
"""

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from export.metadata import Metadata
from export.verification import Verification
from zoo.errors import InputError, VerificationError, first_line

__all__ = ["OPSET", "data_path", "read_file", "read_metadata", "write_verified"]

OPSET = 20  # of ONNX's own domain, in every file of the zoo
MAX_FILE_BYTES = 2**31 - 2**20  # a limit of protobuf


def write_verified(
    path: Path,
    build: Callable[[], onnx.ModelProto],
    verify: Callable[[Path], Verification] | None,
    source: str = "model",
) -> Verification | None:
    """Write the graph that `build` makes to `path`, once `verify` has approved the file.

    `source` says what the graph was made of, for the message. Raises `VerificationError` if the
    file is not that, and leaves what lay at `path`.
    """
    data = data_path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        file = Path(folder) / path.name
        proto = build()
        large = proto.ByteSize() > MAX_FILE_BYTES
        onnx.save(proto, file, save_as_external_data=large, location=data.name if large else None)
        del proto
        gc.collect()  # the exporter leaves copies of the weights in reference cycles
        result = verify(file) if verify else None
        if result and not result.ok:
            raise VerificationError(
                f"the export is not the {source}: {result.worst()}; no file was written to {path}"
            )
        if large:
            data_path(file).replace(data)
        file.replace(path)
    if not large:
        data.unlink(missing_ok=True)  # of an earlier export
    return result


def data_path(path: Path) -> Path:
    """Return the file for the weights of the graph at `path` that are too large for it."""
    return path.with_name(path.name + ".data")


def read_file(path: str | Path, *, weights: bool = True) -> onnx.ModelProto:
    """Return the graph at `path`, with its weights or without those that lie beside it.

    Raises `InputError` for anything but an ONNX file, and for a file of the zoo whose operators
    are of another version than it writes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: write it with `zoo export NAME --to onnx`")
    try:
        proto = onnx.load(path, load_external_data=weights)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is not an ONNX file: {first_line(error)}") from None
    if not proto.opset_import:
        raise InputError(f"{path} is not an ONNX file: it names no operator set")
    opset = next((entry.version for entry in proto.opset_import if not entry.domain), 0)
    if opset != OPSET and read_metadata(proto, path).written_by_zoo:
        raise InputError(
            f"{path} is of ONNX opset {opset}, files of the zoo are of {OPSET}: "
            "write it again with `zoo export`"
        )
    return proto


def read_metadata(proto: onnx.ModelProto, path: str | Path) -> Metadata:
    """Return what the file at `path` says of itself."""
    strings = {str(entry.key): str(entry.value) for entry in proto.metadata_props}
    return Metadata.from_strings(strings, str(path))
