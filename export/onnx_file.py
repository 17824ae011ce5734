"""ONNX graphs as files, verified before they have their name.

danet50-t4.in1k.onnx         the graph, and up to 2 GB of weights
danet50-t4.in1k.onnx.data    more than that: the weights, beside the graph
"""

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from export.verify.result import Verification
from zoo.errors import VerificationError

__all__ = ["data_path", "write_verified"]

LARGEST = 2**31 - 2**20  # bytes of one file, a limit of protobuf


def write_verified(
    path: Path, build: Callable[[], onnx.ModelProto], verify: Callable[[Path], Verification] | None, of: str = "model"
) -> Verification | None:
    """Write the graph that `build` makes to `path`, once `verify` has found that the file is what it is to be.

    Raises `VerificationError` if it is not, which names `of`, and leaves what lay there.
    """
    data = data_path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        file = Path(folder) / path.name
        proto = build()
        large = proto.ByteSize() > LARGEST
        onnx.save(proto, file, save_as_external_data=large, location=data.name if large else None)
        del proto
        gc.collect()  # the exporter leaves copies of the weights in reference cycles
        result = verify(file) if verify else None
        if result and not result.ok:
            raise VerificationError(f"the export is not the {of}: {result.worst()}; no file was written to {path}")
        if large:
            data_path(file).replace(data)
        file.replace(path)
    if not large:
        data.unlink(missing_ok=True)  # of an earlier export
    return result


def data_path(path: Path) -> Path:
    """Where the weights of the graph at `path` lie, if they are too many for it."""
    return path.with_name(path.name + ".data")
