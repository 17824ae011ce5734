"""NIR files of anyone. The file is read by a process of its own (`export.nir.hdf5_process`), which
hands over numbers and strings, no objects.

What comes back is what `nir.read(path, type_check=False)` would make of a good file. What NIR
refuses and other tools write is read too, where it can mean one thing only: scalars beside arrays
among the parameters of one neuron node, which are spread; a convolution or matrix without a bias;
"SAME" and "VALID"; declared types of nodes, which follow from the parameters; and an Input or
Output without a shape, or with one as `input_type` or `output_type`.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from threading import Timer
from types import NoneType
from typing import IO, Any

import nir
import numpy as np

from export.nir import hdf5_process as hdf5
from zoo.errors import InputError

__all__ = ["read_nir"]

NAMES = "Affine AvgPool2d Conv1d Conv2d CubaLI CubaLIF Delay Flatten I IF Input LI LIF Linear NIRGraph Output Scale SumPool2d Threshold"
KINDS: dict[str, type] = {name: getattr(nir, name) for name in NAMES.split()}
MAX_LINE = 1 << 16
DTYPES = [
    f"<{kind}{size}"
    for kind, sizes in (("f", (2, 4, 8)), ("i", (2, 4, 8)), ("u", (2, 4, 8)))
    for size in sizes
]
DTYPES += ["|i1", "|u1", "|b1"]
TYPES = ("input_type", "output_type")
MAX_AXES = 32
WINDOWS = {"kernel_size", "stride", "padding", "dilation", "groups", "input_shape"}
WORDS = [
    ("padding", "same"),
    ("padding", "valid"),
    ("shape", None),
    ("bias", None),
    ("input_shape", None),
]
Tree = dict[str, Any]  # of a group: groups, arrays or numpy scalars, strings or lists of strings


def read_nir(path: str | Path) -> nir.NIRGraph:
    """The graph in a NIR file. It is whole, but whether its nodes fit each other is for `flow` to
    say.

    Takes as much memory as the arrays in it, at most 4 GiB and 1100 times the size of the file.
    Raises `InputError` of one line for anything else than a NIR graph.
    """
    path = Path(path)
    graph = _node(path, "", _read_tree(path))
    if not isinstance(graph, nir.NIRGraph):
        raise InputError(
            f"{path} holds a single {type(graph).__name__}, not a graph: write a NIRGraph"
        )
    return graph


def _read_tree(path: Path) -> Tree:
    """The group `node` of an HDF5 file."""
    if not path.is_file():
        raise InputError(f"{path} is no file: give the path of a NIR file")
    size = path.stat().st_size
    # One thread, and no plugins: HDF5 would load the code that a file names.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HDF5_PLUGIN_PRELOAD": "::",
    }
    command = [sys.executable, "-P", hdf5.__file__, str(path.absolute())]
    seconds = hdf5.allowed_seconds(size)
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        # on a busy machine a second of a processor takes several
        clock = Timer(10 * seconds, reader.kill)
        clock.start()
        try:
            assert reader.stdout is not None
            tree = _tree(path, reader.stdout, hdf5.allowed_bytes(size))
        except InputError:
            raise
        except (ValueError, TypeError, LookupError):  # no stream of ours
            tree = None
        finally:
            clock.cancel()
            reader.kill()
    if tree is None:
        raise InputError(
            f"{path} is damaged: HDF5 crashed on it, or does not come to its end; write it again"
        )
    return tree


def _tree(path: Path, stream: IO[bytes], most: int) -> Tree | None:
    """The tree that a stream of `export.nir.hdf5_process` describes, or None for a stream that
    breaks off.
    """
    stack: list[Tree] = [{}]
    while (line := stream.readline(MAX_LINE)).endswith(b"\n"):
        match json.loads(line):
            case {"open": str(name)}:
                stack[-1][name] = {}
                stack.append(stack[-1][name])
            case {"close": True}:
                stack.pop()
            case {"numbers": str(name), "dtype": str(dtype), "shape": [*shape]} if dtype in DTYPES:
                most -= math.prod(shape) * np.dtype(dtype).itemsize
                if most < 0:
                    return None
                array = np.empty(shape, dtype)
                target = array.reshape(-1).view(np.uint8).data
                # A pipe and a BytesIO have readinto, which typeshed's IO has not.
                if array.size and stream.readinto(target) != array.nbytes:  # type: ignore[attr-defined]
                    return None
                stack[-1][name] = array if shape else array[()]
            case {"text": str(name), "shape": [*shape], "bytes": int(size)}:
                strings = json.loads(stream.read(size))
                stack[-1][name] = strings if shape else strings[0]
                if len(shape) > 1:
                    stack[-1][name] = np.array(strings, object).reshape(shape).tolist()
            case {"error": str(why)}:
                raise InputError(f"{path} {why}")
            case {"end": True}:
                return dict(stack[0]["node"])
    return None


def _node(path: Path, name: str, tree: Tree) -> Any:
    """A node, or a graph with all its nodes."""
    label = f"{path}: NIR node {name!r}" if name else f"{path}: the graph"
    kind = KINDS.get(tree["type"]) if isinstance(tree.get("type"), str) else None
    if kind is None:
        raise InputError(
            f"{label} has the type {str(tree.get('type'))[:80]!r}; valid are {', '.join(KINDS)}"
        )
    label += f" ({kind.__name__})"
    required, optional = _fields(kind)
    values = {
        key: value for key, value in tree.items() if key not in ("type", *TYPES) or key in optional
    }
    missing, unknown = required - values.keys(), values.keys() - required - optional
    if missing or unknown:
        raise InputError(
            f"{label} has no {', '.join(sorted(missing)) or 'place for'} {', '.join(sorted(unknown))[:200]}".rstrip()
            + f"; valid are {', '.join(sorted(required | optional))}"
        )
    if not isinstance(values.get("metadata", {}), dict):
        raise InputError(f"{label} has metadata that are no group")
    if kind is nir.NIRGraph:
        return _graph(path, label, name, values)
    if kind in (nir.Input, nir.Output):
        values = _declared(tree)
    values |= {key: _window(values[key]) for key in WINDOWS & values.keys()}
    for key, value in values.items():
        word = value if isinstance(value, str | NoneType) else ""
        if (
            key != "metadata"
            and not isinstance(value, np.ndarray | np.generic)
            and (key, word) not in WORDS
        ):
            raise InputError(f"{label} has a {key} that is no array of numbers")
    values = dict.fromkeys(sorted(optional & {"bias", "input_shape"})) | values
    return _built(label, kind, _spread(values) if "r" in values else values)


def _window(value: Any) -> Any:
    """A size of a window, whole numbers as integers, a word in small letters, and None for NaN, by
    which some tools say nothing.
    """
    if isinstance(value, str):
        return value.lower()
    if (
        not isinstance(value, np.ndarray | np.generic)
        or value.dtype.kind != "f"
        or not 0 < value.size <= MAX_AXES
    ):
        return value
    if np.isnan(value).all():
        return None
    numbers = value.astype(np.float64)
    whole = (np.abs(numbers) < 2**31).all() and (numbers == np.rint(numbers)).all()
    return numbers.astype(np.int64) if whole else value


def _declared(tree: Tree) -> Tree:
    """What an Input or Output says: its shape, by whichever name it has one, or None."""
    shapes = [tree[key] for key in ("shape", *TYPES) if key in tree]
    shapes = [
        next(iter(shape.values())) if isinstance(shape, dict) and len(shape) == 1 else shape
        for shape in shapes
    ]
    return {"shape": shapes[0] if shapes else None} | {
        key: value for key, value in tree.items() if key == "metadata"
    }


def _fields(kind: type) -> tuple[set[str], set[str]]:
    """What a node of a kind has in a file: what it must have, and what it may have."""
    if kind in (nir.Input, nir.Output):
        return set(), {"shape", "metadata"}
    given = [field for field in dataclasses.fields(kind) if field.name not in ("metadata", *TYPES)]
    optional = {
        field.name
        for field in given
        if field.default is not dataclasses.MISSING or field.name in ("bias", "input_shape")
    }
    return {field.name for field in given} - optional, optional | {"metadata"} | (
        {"input_type"} if kind is nir.Flatten else set()
    )


def _graph(path: Path, label: str, name: str, values: Tree) -> Any:
    nodes, edges = values["nodes"], values["edges"]
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise InputError(f"{label} has nodes that are not groups")
    if isinstance(edges, np.ndarray) and edges.size == 0:
        edges = []  # of no type
    if not isinstance(edges, list) or not all(
        isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in edges
    ):
        raise InputError(f"{label} has edges that are no pairs of names")
    built = {
        key: _node(path, f"{name}.{key}" if name else key, node) for key, node in nodes.items()
    }
    return _built(
        label, nir.NIRGraph, values | {"nodes": built, "edges": [(a, b) for a, b in edges]}
    )


def _spread(values: Tree) -> Tree:
    """A neuron's parameters, scalars in the shape of those that are none, if these have one; else
    as many axes as any has.
    """
    shapes = {key: np.shape(value) for key, value in values.items() if key != "metadata"}
    arrays = set(shapes.values()) - {(), (1,)} or set(shapes.values()) - {()}
    if len(arrays) != 1:
        return values
    (shape,) = arrays
    return values | {
        key: np.full(shape, values[key]) for key, own in shapes.items() if own in ((), (1,))
    }


def _built(label: str, kind: Any, values: Tree) -> Any:
    try:
        with np.errstate(all="ignore"):
            if kind is nir.NIRGraph:
                return nir.NIRGraph(**values, type_check=False)
            return kind.from_dict({**values, "type": kind.__name__})
    except Exception as error:  # nir checks little, and fails as numpy does
        raise InputError(
            f"{label} does not fit together: {' '.join(str(error).split())[:200]}"
        ) from None
