"""NIR graphs and spike trains as files, in the layout of nir 1.0 (HDF5).

A file is verified before it has its name.

    danet20-t4.fmnist.nir          the graph
    danet20-t4.fmnist.trains.nir   its input and every neuron's spikes for a batch, as
                                   `nir.read_data` reads them

Weights are stored as they are, as they do not compress; what repeats itself (parameters of neurons,
pools in convolutions) is gzipped, so that a file is hardly larger than the weights.
"""

import zlib
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import torch

from export.nir.exporter import DT, Dialect, to_nir
from export.nir.reader import read_nir
from export.nir.verify import NirVerification, verify_graph
from zoo.arrays import Array
from zoo.danet import DANet
from zoo.errors import VerificationError
from zoo.files import replacing

__all__ = ["trains_path", "write_graph", "write_nir", "write_trains"]

MAX_GZIP_RATIO = 0.6  # An array is gzipped if its first bytes shrink to less than this.
SAMPLE_BYTES = 1 << 16  # of these first bytes
MIN_GZIP_BYTES = 1 << 12  # of an array that is worth it
CHUNK_BYTES = 1 << 20


def write_nir(
    model: DANet,
    path: str | Path,
    images: torch.Tensor | None = None,
    *,
    dialect: Dialect = "portable",
) -> NirVerification:
    """Write the graph of `model` to `path`, and its spike trains for `images` beside it.

    `images` are as in `export.nir.verify.verify_nir`. The file is read back
    and verified neuron by neuron; only then do both get their names. Raises `ExportError` for what
    NIR cannot say, `VerificationError` if what was read is not the model.
    """
    path = Path(path)
    with replacing(path) as graph_file, replacing(trains_path(path)) as trains_file:
        write_graph(to_nir(model, dialect=dialect), graph_file)
        result = verify_graph(model, read_nir(graph_file), images)
        if not result.ok:
            raise VerificationError(
                f"the export is not the model: {result.worst()}; no file was written to {path}"
            )
        write_trains(result.inputs, result.trains, trains_file)
    return result


def trains_path(path: str | Path) -> Path:
    """Return where the spike trains of the graph at `path` lie: `x.nir` -> `x.trains.nir`."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".nir") + ".trains.nir")


def write_graph(graph: nir.NIRGraph, path: str | Path) -> None:
    """Write what `nir.write` does, quicker and smaller: each array has the filter it needs."""
    with h5py.File(path, "w") as file:
        file.create_dataset("version", data=nir.version, dtype=h5py.string_dtype())
        top = nir.NIRGraph({}, graph.edges, metadata=graph.metadata, type_check=False).to_dict()
        _write_group(file.create_group("node"), top | {"nodes": graph.nodes})


def _write_group(group: h5py.Group, values: dict[str, Any]) -> None:
    """Write nodes and dicts as groups, all else as data sets."""
    for name, value in values.items():
        match value:
            case nir.NIRNode():
                # The dict is a copy, which is gone before the next node's is made.
                _write_group(group.create_group(name), value.to_dict())
            case dict():
                if value or name != "metadata":
                    _write_group(group.create_group(name), value)
            case str():
                group.create_dataset(name, data=value, dtype=h5py.string_dtype())
            case np.ndarray():
                group.create_dataset(name, data=value, **_filters(value))
            case _:
                group.create_dataset(name, data=value)


def _filters(array: Array) -> dict[str, Any]:
    """Return the options of `create_dataset` for an array: gzip if it is worth it."""
    sample = np.ascontiguousarray(array[:1] if array.ndim else array).tobytes()[:SAMPLE_BYTES]
    if array.nbytes < MIN_GZIP_BYTES:
        return {}
    if len(zlib.compress(sample, 1)) > MAX_GZIP_RATIO * len(sample):
        return {}
    rows = max(1, min(len(array), CHUNK_BYTES * len(array) // array.nbytes))
    return {"compression": "gzip", "compression_opts": 1, "chunks": (rows, *array.shape[1:])}


def write_trains(images: Array, trains: dict[str, Array], path: str | Path) -> None:
    """Write `images` and the spikes `[T, B, ...]` of each node.

    Images `[B, C, H, W]` are shown at every step; events are `[T, B, C, H, W]`.

    They become nir's `TimeGriddedData` `[B, T, elements]`, with a step of `DT` seconds.
    """
    steps = len(next(iter(trains.values())))
    inputs = _gridded(np.broadcast_to(images, (steps, *images.shape[-4:])))
    nodes = {"input": nir.NIRNodeData({"input": inputs})}
    for name, train in trains.items():
        nodes[name] = nir.NIRNodeData({"spikes": _gridded(train.astype(bool))})
    nir.write_data(path, nir.NIRGraphData(nodes), compression="gzip", compression_opts=1)


def _gridded(values: Array) -> nir.TimeGriddedData:
    """Return values `[T, B, ...]` as `[B, T, elements]`."""
    steps, batch = values.shape[:2]
    batch_first = np.ascontiguousarray(values.swapaxes(0, 1))
    return nir.TimeGriddedData(batch_first.reshape(batch, steps, -1), DT)
