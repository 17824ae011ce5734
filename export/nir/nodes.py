"""One table of all that is known of each type of NIR node, and checks of a single node.

`NODE_KINDS` says of a type what it is, which of its fields are arrays of numbers, whether its
output is spikes, how a neuron integrates, and the shape of its output. The reader, the checked
graph, the interpreter, the network and the verification consult it. To add a node is an entry
here and what the node computes in `export.nir.interpreter`, `export.nir.modules` and
`export.onnx.nir_step`; a neuron of leaky integrators needs nothing more than the entry.

Whatever a node holds, everything here either takes it or says no in one line; nothing is computed
or allocated.
"""

import math
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import nir
import numpy as np

from zoo.arrays import Array, Shape
from zoo.errors import ExportError
from zoo.records import shown

__all__ = [
    "CONVS",
    "LINEAR",
    "MAX_AXES",
    "MAX_ELEMENTS",
    "NEURONS",
    "NODE_KINDS",
    "PARAMETERS",
    "POOLS",
    "SCALAR",
    "SPIKING",
    "SPIKING_NEURONS",
    "Integrator",
    "NodeKind",
    "Role",
    "declared_shape",
    "delay_steps",
    "kernel_size",
    "nodes_of",
    "output_shape",
    "paddings",
    "prepared",
    "refused",
]

MAX_AXES = 32
MAX_ELEMENTS = 1 << 31  # of one value
MAX_WINDOW = 1 << 20  # of a kernel, stride, padding or dilation
SCALAR: tuple[Shape, ...] = ((), (1,))  # one number for all elements of the input


def refused(name: str, why: str) -> ExportError:
    """Return the error to raise for a node."""
    return ExportError(f"NIR node {shown(name)} {why}")


# The shape of a node's output. A rule takes the node's name, the node, the shape that it reads,
# and axes that a declared shape may have before it.


def _elementwise_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return the shape of the input, and give it to every parameter."""
    for field in NODE_KINDS[type(node)].parameters:
        value = getattr(node, field)
        shape = () if value.size == 1 else _without_ones(value.shape, len(takes))
        fits = all(size in (1, axis) for size, axis in zip(shape, takes, strict=False))
        if len(shape) not in (0, len(takes)) or not fits:
            raise refused(
                name, f"reads {list(takes)}, but its {field} has the shape {list(value.shape)}"
            )
        setattr(node, field, np.broadcast_to(value.reshape(shape), takes))
    return takes


def _matrix_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return `[..., rows]` for `[..., columns]` and weights `[..., rows, columns]`."""
    *outer, rows, columns = node.weight.shape if node.weight.ndim > 1 else (0, 0)
    biased = "bias" in NODE_KINDS[type(node)].parameters
    if (*outer, columns) != takes or (biased and node.bias.shape != (*outer, rows)):
        raise refused(
            name,
            f"reads {list(takes)}, but has weights {list(node.weight.shape)} or a bias that does "
            "not fit them",
        )
    return (*outer, rows)


def _conv_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return `[C_out, ...]` for `[C, ...]` and weights `[C_out, C / groups, ...]`."""
    channels, *size = _channels_and_size(name, node, takes)
    axes = len(size)
    features, inputs = node.weight.shape[:2] if node.weight.ndim == axes + 2 else (0, 0)
    fits = channels == inputs * node.groups and features % node.groups == 0
    fits = fits and node.bias.shape == (features,)
    declared = getattr(node, "input_shape", None)
    if fits and declared is not None and not _is_nan(declared):
        fits = ints(name, "input_shape", declared, axes, 1) == tuple(size)
    if not fits:
        raise refused(
            name, f"reads {list(takes)}, which its weights, bias, groups or input_shape do not fit"
        )
    if node.padding == "same" and max(node.stride) > 1:
        raise refused(name, "pads to the 'same' size with a stride, which has no meaning")
    return (features, *_slid(name, node, takes, node.dilation))


def _pool_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return `[C, H_out, W_out]` for `[C, H, W]`."""
    channels, *size = _channels_and_size(name, node, takes)
    return (channels, *_slid(name, node, takes, (1,) * len(size)))


def _channels_and_size(name: str, node: Any, takes: Shape) -> Shape:
    axes = NODE_KINDS[type(node)].window_axes
    if len(takes) != axes + 1:
        raise refused(name, f"reads {list(takes)}, but needs channels and {axes} more axes")
    return takes


def _slid(name: str, node: Any, takes: Shape, dilation: Shape) -> Shape:
    """Return how many places a window has along each axis."""
    reach = [d * (k - 1) for d, k in zip(dilation, kernel_size(node), strict=True)]
    along = zip(takes[1:], paddings(node), reach, node.stride, strict=True)
    places = tuple((size + sum(pads) - r - 1) // stride + 1 for size, pads, r, stride in along)
    if min(places) < 1:
        raise refused(name, f"cannot slide over {list(takes)}: its window is larger")
    return places


def _passed_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return the shape of the input, which an `Input` or `Output` may declare."""
    _declared_ahead(name, node, takes, extra)
    return takes


def _flat_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return the flattened shape, and make the node's dimensions count from the input's first."""
    declared, ahead = _declared_ahead(name, node, takes, extra)
    dims = [
        ints(name, field, getattr(node, field, None), 1, -MAX_AXES, MAX_AXES)[0]
        for field in ("start_dim", "end_dim")
    ]
    # Dimensions count from the first axis that is declared.
    first, last = (d + len(declared) * (d < 0) - ahead for d in dims)
    # An axis of batch or time is not flattened.
    alone = first >= 0 or set(declared[:ahead][first:]) <= {1}
    if not (-ahead <= first <= last < len(takes) and last >= 0 and alone):
        raise refused(name, f"flattens dimensions {dims[0]} to {dims[1]} of {list(declared)}")
    node.start_dim, node.end_dim = first, last = max(first, 0), last
    return (*takes[:first], math.prod(takes[first : last + 1]), *takes[last + 1 :])


def _declared_ahead(name: str, node: Any, takes: Shape, extra: Shape) -> tuple[Shape, int]:
    """Return the shape that a node declares, and how many axes it has before those of `takes`."""
    declared = declared_shape(name, node)
    if declared is None:
        return takes, 0
    ahead = len(declared) - len(takes)
    if ahead < 0 or declared[ahead:] != takes:
        fits = False
    else:
        fits = set(declared[:ahead]) <= {1} or declared[:ahead] == extra
    if not fits:
        raise refused(name, f"reads {list(takes)}, but declares {shown(list(declared))}")
    return declared, ahead


def _without_ones(shape: Shape, axes: int) -> Shape:
    """Return `shape` without those first axes of 1 that are more than `axes`."""
    while len(shape) > axes and shape[0] == 1:
        shape = shape[1:]
    return shape


# The table


Role = Literal["neuron", "linear", "pool", "delay", "elementwise", "shape"]
ShapeRule = Callable[[str, Any, Shape, Shape], Shape]


@dataclass(frozen=True)
class Integrator:
    """One state of a neuron: `tau dv/dt = leak - v + gain x`, or `dv/dt = gain x` without `tau`.

    `gain`, `tau` and `leak` are the fields of the node that hold them; a leak without a field is
    zero.
    """

    state: str
    gain: str
    tau: str | None = None
    leak: str | None = None


@dataclass(frozen=True)
class NodeKind:
    """A type of node: all that holds for its nodes, whatever their parameters."""

    role: Role
    output_shape: ShapeRule
    parameters: tuple[str, ...] = ()  # fields that are arrays of finite numbers
    spikes: bool = False  # the output is 0 or 1
    window_axes: int = 0  # along which the window of a convolution or pool slides
    # The states of a neuron: each reads the one before, the first the node's input.
    integrators: tuple[Integrator, ...] = ()


FIRING = ("v_threshold", "v_reset")
CURRENT = (Integrator("membrane", "r"),)
MEMBRANE = (Integrator("membrane", "r", "tau", "v_leak"),)
SYNAPSE_AND_MEMBRANE = (
    Integrator("synapse", "w_in", "tau_syn"),
    Integrator("membrane", "r", "tau_mem", "v_leak"),
)


def _neuron(*parameters: str, integrators: tuple[Integrator, ...]) -> NodeKind:
    spikes = "v_threshold" in parameters
    return NodeKind(
        "neuron", _elementwise_shape, parameters, spikes=spikes, integrators=integrators
    )


def _cuba(*firing: str) -> NodeKind:
    leaky = ("tau_syn", "tau_mem", "r", "v_leak")
    return _neuron(*leaky, *firing, "w_in", integrators=SYNAPSE_AND_MEMBRANE)


NODE_KINDS: dict[type, NodeKind] = {
    nir.Input: NodeKind("shape", _passed_shape),
    nir.Output: NodeKind("shape", _passed_shape),
    nir.Flatten: NodeKind("shape", _flat_shape),
    nir.I: _neuron("r", integrators=CURRENT),
    nir.IF: _neuron("r", *FIRING, integrators=CURRENT),
    nir.LI: _neuron("tau", "r", "v_leak", integrators=MEMBRANE),
    nir.LIF: _neuron("tau", "r", "v_leak", *FIRING, integrators=MEMBRANE),
    nir.CubaLI: _cuba(),
    nir.CubaLIF: _cuba(*FIRING),
    nir.Threshold: NodeKind("elementwise", _elementwise_shape, ("threshold",), spikes=True),
    nir.Scale: NodeKind("elementwise", _elementwise_shape, ("scale",)),
    nir.Delay: NodeKind("delay", _elementwise_shape, ("delay",)),
    nir.Affine: NodeKind("linear", _matrix_shape, ("weight", "bias")),
    nir.Linear: NodeKind("linear", _matrix_shape, ("weight",)),
    nir.Conv1d: NodeKind("linear", _conv_shape, ("weight", "bias"), window_axes=1),
    nir.Conv2d: NodeKind("linear", _conv_shape, ("weight", "bias"), window_axes=2),
    nir.SumPool2d: NodeKind("pool", _pool_shape, window_axes=2),
    nir.AvgPool2d: NodeKind("pool", _pool_shape, window_axes=2),
}


def nodes_of(*roles: Role) -> tuple[type, ...]:
    """Return the types of node that have one of these roles."""
    return tuple(node for node, kind in NODE_KINDS.items() if kind.role in roles)


NEURONS, LINEAR, POOLS = nodes_of("neuron"), nodes_of("linear"), nodes_of("pool")
CONVS = tuple(node for node in LINEAR if NODE_KINDS[node].window_axes)
SPIKING = tuple(node for node, kind in NODE_KINDS.items() if kind.spikes)
SPIKING_NEURONS = tuple(node for node in NEURONS if node in SPIKING)
PARAMETERS = {node: kind.parameters for node, kind in NODE_KINDS.items()}


# A single node


def prepared(name: str, node: Any) -> Any:
    """Return a copy whose parameters are finite numbers and whose windows are tuples of integers.

    Raises `ExportError` for a node of an unknown type, or with other values.
    """
    kind = NODE_KINDS.get(type(node))
    if kind is None:
        raise refused(name, f"is of the unknown type {type(node).__name__}")
    node = copy(node)
    for field in kind.parameters:
        value = getattr(node, field, None)
        if field == "bias" and value is None:
            rows = 1 if kind.window_axes else -1
            value = np.zeros(node.weight.shape[:rows], node.weight.dtype)
        setattr(node, field, _numbers(name, field, value))
    if not (axes := kind.window_axes):
        return node
    if kind.role == "pool":
        windows = [("kernel_size", 1), ("stride", 1), ("padding", 0)]
    else:
        windows = [("stride", 1), ("dilation", 1)]
    for field, least in windows:
        setattr(node, field, ints(name, field, getattr(node, field, None), axes, least))
    if kind.role == "linear":
        (node.groups,) = ints(name, "groups", getattr(node, "groups", None), 1, 1)
        node.padding = _padding(name, getattr(node, "padding", None), axes)
    return node


def kernel_size(node: Any) -> Shape:
    """Return the size of the window of a convolution or pool."""
    size: Shape = node.kernel_size if type(node) in POOLS else node.weight.shape[2:]
    return size


def paddings(node: Any) -> list[tuple[int, int]]:
    """Return how many zeros a convolution or pool reads before and after each axis."""
    if node.padding != "same":
        return [(pad, pad) for pad in node.padding]
    # As torch pads: the larger half at the end.
    reach = [d * (k - 1) for d, k in zip(node.dilation, kernel_size(node), strict=True)]
    return [(r // 2, r - r // 2) for r in reach]


def output_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """Return the shape of a node's output for an input of the shape `takes`.

    A node may declare axes of 1, or those of `extra`, before the ones that it takes. Elementwise
    parameters get the shape of the input. Raises `ExportError` for a node that does not take it.
    """
    return NODE_KINDS[type(node)].output_shape(name, node, takes, extra)


def declared_shape(name: str, node: Any) -> Shape | None:
    """Return the shape that an `Input`, `Output` or `Flatten` declares, or None."""
    declared = getattr(node, "input_type", None)
    declared = declared.get("input") if isinstance(declared, dict) else declared
    if declared is None or _is_nan(declared):
        return None
    axes = len(declared) if isinstance(declared, list | tuple) else np.asarray(declared).size
    if axes > MAX_AXES:
        raise refused(name, f"declares {axes} axes: at most {MAX_AXES} are allowed")
    return ints(name, "declared shape", declared, axes, 1, sys.maxsize) if axes else ()


def delay_steps(name: str, node: Any, dt: float) -> Array:
    """Return the delay of each element of a `Delay`, in whole steps of `dt` seconds, as int64.

    Raises `ExportError` for other delays.
    """
    with np.errstate(over="ignore"):
        steps = np.asarray(node.delay, np.float64) / dt
    finite = np.isfinite(steps).all() and (steps >= 0).all()
    if not (finite and np.allclose(steps, np.rint(steps), rtol=1e-6, atol=1e-6)):
        raise refused(name, f"delays by other than whole steps of {dt} seconds")
    return np.rint(np.minimum(steps, 2.0**53)).astype(np.int64)


def ints(name: str, field: str, value: Any, axes: int, least: int, most: int = MAX_WINDOW) -> Shape:
    """Return an integer for each axis, of a value that has as many, or one for all.

    Raises `ExportError` for what is none, or not from `least` to `most`.
    """
    numbers = list(value.ravel()) if isinstance(value, np.ndarray) and value.size <= axes else value
    numbers = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    integers = [int(number) for number in numbers if _is_integer(number)]
    valid = len(integers) == len(numbers) and all(least <= number <= most for number in integers)
    if not valid or len(numbers) not in (1, axes):
        raise refused(
            name,
            f"has {shown(value)} as its {field}, where {axes} integers from {least} to {most} are "
            "expected",
        )
    return tuple(integers) * (axes // len(integers))


def _padding(name: str, value: Any, axes: int) -> Shape | str:
    """Return a number of pixels for each axis, or "same"."""
    word = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    word = word.decode("ascii", "replace") if isinstance(word, bytes) else word
    if isinstance(word, str) and word.lower() in ("same", "valid"):
        return "same" if word.lower() == "same" else (0,) * axes
    return ints(name, "padding", value, axes, 0)


def _numbers(name: str, field: str, value: Any) -> Array:
    """Return a parameter in the machine's byte order; False and True are 0 and 1."""
    numeric = isinstance(value, np.ndarray | np.generic | int | float)
    if not numeric or (array := np.asarray(value)).dtype.kind not in "fiub":
        raise refused(
            name, f"has {shown(value)} as its {field}, where an array of numbers is expected"
        )
    if not 0 < array.size <= MAX_ELEMENTS or not np.isfinite([array.min(), array.max()]).all():
        raise refused(
            name,
            f"has {field} that are not finite numbers, or none, or more than {MAX_ELEMENTS:.1e}",
        )
    dtype = np.float32 if array.dtype.kind == "b" else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def _is_integer(number: Any) -> bool:
    """Return whether a number is an integer, of whatever type."""
    if isinstance(number, float | np.floating):
        return bool(np.isfinite(number)) and number == int(number)
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _is_nan(value: Any) -> bool:
    """Return whether a shape is NaN, by which some tools say that it is unknown."""
    numeric = isinstance(value, float | np.floating | np.ndarray)
    array = np.asarray(value) if numeric else np.zeros(0)
    return 0 < array.size <= MAX_AXES and array.dtype.kind == "f" and bool(np.isnan(array).all())
