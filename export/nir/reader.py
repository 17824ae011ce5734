"""NIR files of anyone. The file is read by a child process, which sends numbers and strings alone.

`export.nir.hdf5_process` is what runs there. What comes back is what
`nir.read(path, type_check=False)` would make of a good file. What NIR refuses and other tools
write is read too, where it can mean one thing only: scalars beside arrays among the parameters of
one neuron node, which are spread; a convolution or matrix without a bias; "SAME" and "VALID";
declared types of nodes, which follow from the parameters; and an Input or Output without a shape,
or with one as `input_type` or `output_type`.
"""

import dataclasses
from pathlib import Path
from types import NoneType
from typing import Any

import nir
import numpy as np

from export.nir import hdf5_process as hdf5
from export.nir.nodes import MAX_AXES, NODE_KINDS, SCALAR
from zoo import sandbox
from zoo.errors import InputError
from zoo.sandbox import Tree

__all__ = ["read_nir"]

TYPES: dict[str, type] = {kind.__name__: kind for kind in (*NODE_KINDS, nir.NIRGraph)}
DECLARED = ("input_type", "output_type")  # which follow from the parameters of most nodes
WINDOWS = {"kernel_size", "stride", "padding", "dilation", "groups", "input_shape"}
# Values other than arrays that a field of a node may have; None is one that is not there.
OTHER_VALUES = [
    ("padding", "same"),
    ("padding", "valid"),
    ("shape", None),
    ("bias", None),
    ("input_shape", None),
]


def read_nir(path: str | Path) -> nir.NIRGraph:
    """Return the graph in a NIR file; whether its nodes fit each other is for `check_graph` to say.

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
    """Return the group `node` of an HDF5 file."""
    if not path.is_file():
        raise InputError(f"{path} is no file: give the path of a NIR file")
    try:
        tree = sandbox.run(hdf5.send_graph, path, hdf5.limits_for(path.stat().st_size)).get("node")
    except sandbox.Refused as error:
        raise InputError(f"{path} {error}") from None
    except sandbox.Crashed:
        tree = None
    if not isinstance(tree, dict):
        raise InputError(
            f"{path} is damaged: HDF5 crashed on it, or does not come to its end; write it again"
        )
    return tree


def _node(path: Path, name: str, tree: Tree) -> Any:
    """Return a node, or a graph with all its nodes."""
    label = f"{path}: NIR node {name!r}" if name else f"{path}: the graph"
    kind = TYPES.get(tree["type"]) if isinstance(tree.get("type"), str) else None
    if kind is None:
        valid = ", ".join(sorted(TYPES))
        raise InputError(f"{label} has the type {str(tree.get('type'))[:80]!r}; valid are {valid}")
    label += f" ({kind.__name__})"
    required, optional = _fields(kind)
    ignored = {"type", *DECLARED} - optional
    values = {key: value for key, value in tree.items() if key not in ignored}
    _check_fields(label, values, required, optional)
    if not isinstance(values.get("metadata", {}), dict):
        raise InputError(f"{label} has metadata that are no group")
    if kind is nir.NIRGraph:
        return _graph(path, label, name, values)
    if kind in (nir.Input, nir.Output):
        values = _declared(tree)
    values |= {key: _window(values[key]) for key in WINDOWS & values.keys()}
    for key, value in values.items():
        word = value if isinstance(value, str | NoneType) else ""
        numbers = isinstance(value, np.ndarray | np.generic)
        if key != "metadata" and not numbers and (key, word) not in OTHER_VALUES:
            raise InputError(f"{label} has a {key} that is no array of numbers")
    values = dict.fromkeys(sorted(optional & {"bias", "input_shape"})) | values
    return _construct(label, kind, _spread(values) if "r" in values else values)


def _check_fields(label: str, values: Tree, required: set[str], optional: set[str]) -> None:
    """Raise `InputError` for a field that is missing, or that the node does not have."""
    missing, unknown = required - values.keys(), values.keys() - required - optional
    if missing or unknown:
        lacks = ", ".join(sorted(missing)) or "place for"
        valid = ", ".join(sorted(required | optional))
        wrong = f"{label} has no {lacks} {', '.join(sorted(unknown))[:200]}".rstrip()
        raise InputError(f"{wrong}; valid are {valid}")


def _window(value: Any) -> Any:
    """Return a size of a window with whole numbers as integers, and a word in small letters.

    It is None for NaN, by which some tools say that there is none.
    """
    if isinstance(value, str):
        return value.lower()
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind != "f":
        return value
    if not 0 < value.size <= MAX_AXES:
        return value
    if np.isnan(value).all():
        return None
    numbers = value.astype(np.float64)
    integers = (np.abs(numbers) < 2**31).all() and (numbers == np.rint(numbers)).all()
    return numbers.astype(np.int64) if integers else value


def _declared(tree: Tree) -> Tree:
    """Return the fields of an Input or Output: its shape, by whichever name it has one, or None."""
    shape = next((tree[key] for key in ("shape", *DECLARED) if key in tree), None)
    if isinstance(shape, dict) and len(shape) == 1:
        shape = next(iter(shape.values()))
    return {"shape": shape} | ({"metadata": tree["metadata"]} if "metadata" in tree else {})


def _fields(kind: type) -> tuple[set[str], set[str]]:
    """Return the fields that a node of a type must have in a file, and those that it may have."""
    if kind in (nir.Input, nir.Output):
        return set(), {"shape", "metadata"}
    fields = [f for f in dataclasses.fields(kind) if f.name not in ("metadata", *DECLARED)]
    optional = {
        field.name
        for field in fields
        if field.default is not dataclasses.MISSING or field.name in ("bias", "input_shape")
    }
    required = {field.name for field in fields} - optional
    return required, optional | {"metadata"} | ({"input_type"} if kind is nir.Flatten else set())


def _graph(path: Path, label: str, name: str, values: Tree) -> Any:
    """Return a graph, of whose edges only the form is checked."""
    nodes, edges = values["nodes"], values["edges"]
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) for node in nodes.values()):
        raise InputError(f"{label} has nodes that are not groups")
    if isinstance(edges, np.ndarray) and edges.size == 0:
        edges = []  # which has no type in the file
    if not isinstance(edges, list) or not all(map(_is_pair, edges)):
        raise InputError(f"{label} has edges that are no pairs of names")
    nodes = {
        key: _node(path, f"{name}.{key}" if name else key, node) for key, node in nodes.items()
    }
    return _construct(label, nir.NIRGraph, values | {"nodes": nodes, "edges": [*map(tuple, edges)]})


def _is_pair(edge: Any) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and isinstance(edge[0], str)


def _spread(values: Tree) -> Tree:
    """Return a neuron's parameters with scalars in the shape of those that are none.

    Where all are scalars, they get as many axes as any has.
    """
    shapes = {key: np.shape(value) for key, value in values.items() if key != "metadata"}
    arrays = set(shapes.values()) - {*SCALAR} or set(shapes.values()) - {()}
    if len(arrays) != 1:
        return values
    (shape,) = arrays
    return values | {
        key: np.full(shape, values[key]) for key, own in shapes.items() if own in SCALAR
    }


def _construct(label: str, kind: Any, values: Tree) -> Any:
    """Return the node of these fields. Raise `InputError` where nir does not make one of them."""
    try:
        with np.errstate(all="ignore"):
            if kind is nir.NIRGraph:
                return nir.NIRGraph(**values, type_check=False)
            return kind.from_dict({**values, "type": kind.__name__})
    except Exception as error:  # nir checks little, and fails as numpy does
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{label} does not fit together: {why}") from None
