"""One node of a NIR graph: its parameters as finite numbers, its windows as integers, and the shape
that it gives.

Everything here says no in one line, whatever a node holds; nothing is computed or allocated.
"""

import math
import reprlib
import sys
from copy import copy
from typing import Any

import nir
import numpy as np

from zoo.errors import ExportError

__all__ = [
    "CONVS",
    "MAX_ELEMENTS",
    "NEURONS",
    "PARAMETERS",
    "POOLS",
    "SCALAR",
    "SPIKING",
    "Array",
    "Shape",
    "declared_shape",
    "delay_steps",
    "output_shape",
    "prepared",
    "refused",
    "shown",
]

MAX_AXES = 32
MAX_ELEMENTS = 1 << 31  # of one value
MAX_WINDOW = 1 << 20  # of a kernel, stride, padding or dilation
Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]

NEURONS: dict[type, tuple[str, ...]] = {
    nir.I: ("r",),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.LI: ("tau", "r", "v_leak"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}
# Every parameter has the shape of the input.
ELEMENTWISE = NEURONS | {
    nir.Scale: ("scale",),
    nir.Threshold: ("threshold",),
    nir.Delay: ("delay",),
}
WEIGHTS: dict[type, tuple[str, ...]] = dict.fromkeys(
    (nir.Affine, nir.Conv1d, nir.Conv2d), ("weight", "bias")
)
PARAMETERS = ELEMENTWISE | WEIGHTS | {nir.Linear: ("weight",)}
CONVS, POOLS = (nir.Conv1d, nir.Conv2d), (nir.SumPool2d, nir.AvgPool2d)
SCALAR: tuple[Shape, ...] = ((), (1,))  # one number for all elements of the input
VIRTUAL = (nir.Input, nir.Output, nir.Flatten)
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold)

_brief = reprlib.Repr()  # a message stays short, whatever it is about
_brief.maxstring = _brief.maxother = 120


def shown(value: object) -> str:
    """A value in a message: short, and in one line."""
    return " ".join(_brief.repr(value).split())  # an array may have brought line breaks


def refused(name: str, why: str) -> ExportError:
    """The error to raise for a node."""
    return ExportError(f"NIR node {shown(name)} {why}")


def prepared(name: str, node: Any) -> Any:
    """A copy of a node of a known type, whose parameters are finite numbers and whose windows are
    tuples of integers.
    """
    kind = type(node)
    if kind not in (*PARAMETERS, *POOLS, *VIRTUAL):
        raise refused(name, f"is of the unknown type {kind.__name__}")
    node = copy(node)
    for field in PARAMETERS.get(kind, ()):
        value = getattr(node, field, None)
        if field == "bias" and value is None:
            rows = 1 if kind in CONVS else -1
            value = np.zeros(node.weight.shape[:rows], node.weight.dtype)
        setattr(node, field, _numbers(name, field, value))
    if kind in CONVS:
        axes = 1 if kind is nir.Conv1d else 2
        node.stride, node.dilation = (
            ints(name, field, getattr(node, field, None), axes, 1)
            for field in ("stride", "dilation")
        )
        (node.groups,) = ints(name, "groups", getattr(node, "groups", None), 1, 1)
        node.padding = _padding(name, getattr(node, "padding", None), axes)
    elif kind in POOLS:
        for field, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            setattr(node, field, ints(name, field, getattr(node, field, None), 2, least))
    return node


def _padding(name: str, value: Any, axes: int) -> Shape | str:
    """A number of pixels for each axis, or "same"."""
    word = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    word = word.decode("ascii", "replace") if isinstance(word, bytes) else word
    if isinstance(word, str) and word.lower() in ("same", "valid"):
        return "same" if word.lower() == "same" else (0,) * axes
    return ints(name, "padding", value, axes, 0)


def _numbers(name: str, field: str, value: Any) -> Array:
    """A parameter as an array in the machine's byte order; False and True are 0 and 1."""
    if (
        not isinstance(value, np.ndarray | np.generic | int | float)
        or (array := np.asarray(value)).dtype.kind not in "fiub"
    ):
        raise refused(
            name, f"has {shown(value)} as its {field}, where an array of numbers is expected"
        )
    if not 0 < array.size <= MAX_ELEMENTS or not np.isfinite([array.min(), array.max()]).all():
        raise refused(
            name,
            f"has {field} that are not finite numbers, or none, or more than {MAX_ELEMENTS:.1e}",
        )
    return array.astype(
        np.float32 if array.dtype.kind == "b" else array.dtype.newbyteorder("="), copy=False
    )


def ints(name: str, field: str, value: Any, axes: int, least: int, most: int = MAX_WINDOW) -> Shape:
    """`value`, or as many of them as there are axes."""
    numbers = list(value.ravel()) if isinstance(value, np.ndarray) and value.size <= axes else value
    numbers = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    whole = [int(number) for number in numbers if _whole(number)]
    if (
        len(whole) != len(numbers)
        or len(numbers) not in (1, axes)
        or not all(least <= number <= most for number in whole)
    ):
        raise refused(
            name,
            f"has {shown(value)} as its {field}, where {axes} integers from {least} to {most} are expected",
        )
    return tuple(whole) * (axes // len(whole))


def _whole(number: Any) -> bool:
    """Whether a number is an integer, of whatever type."""
    if isinstance(number, float | np.floating):
        return bool(np.isfinite(number)) and number == int(number)
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def delay_steps(name: str, node: Any, dt: float) -> Array:
    """The delay of each element of a `Delay`, in whole steps of `dt` seconds, as int64. Raises
    `ExportError` for other delays.
    """
    with np.errstate(over="ignore"):
        steps = np.asarray(node.delay, np.float64) / dt
    if not (
        np.isfinite(steps).all()
        and (steps >= 0).all()
        and np.allclose(steps, np.rint(steps), rtol=1e-6, atol=1e-6)
    ):
        raise refused(name, f"delays by other than whole steps of {dt} seconds")
    return np.rint(np.minimum(steps, 2.0**53)).astype(np.int64)


def declared_shape(name: str, node: Any) -> Shape | None:
    """The shape that an `Input`, `Output` or `Flatten` declares."""
    declared = getattr(node, "input_type", None)
    declared = declared.get("input") if isinstance(declared, dict) else declared
    if declared is None or _nan(declared):
        return None
    axes = len(declared) if isinstance(declared, list | tuple) else np.asarray(declared).size
    if axes > MAX_AXES:
        raise refused(name, f"declares {axes} axes: at most {MAX_AXES} are allowed")
    return ints(name, "declared shape", declared, axes, 1, sys.maxsize) if axes else ()


def _nan(value: Any) -> bool:
    """Whether a shape is said to be unknown, as some tools say it."""
    array = (
        np.asarray(value) if isinstance(value, float | np.floating | np.ndarray) else np.zeros(0)
    )
    return 0 < array.size <= MAX_AXES and array.dtype.kind == "f" and bool(np.isnan(array).all())


def output_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """What a node gives for an input of the shape `takes`. Raises `ExportError` for a node that
    does not take it.

    A node may declare axes of 1, or those of `extra`, before the ones that it takes.
    """
    kind = type(node)
    if kind in ELEMENTWISE:
        for field in ELEMENTWISE[kind]:
            value = getattr(node, field)
            shape = () if value.size == 1 else _without_ones(value.shape, len(takes))
            if len(shape) not in (0, len(takes)) or any(
                size not in (1, n) for size, n in zip(shape, takes, strict=False)
            ):
                raise refused(
                    name, f"reads {list(takes)}, but its {field} has the shape {list(value.shape)}"
                )
            setattr(node, field, np.broadcast_to(value.reshape(shape), takes))
        return takes
    if kind in (nir.Affine, nir.Linear):
        *outer, rows, columns = node.weight.shape if node.weight.ndim > 1 else (0, 0)
        if (*outer, columns) != takes or (kind is nir.Affine and node.bias.shape != (*outer, rows)):
            raise refused(
                name,
                f"reads {list(takes)}, but has weights {list(node.weight.shape)} or a bias that does not fit them",
            )
        return (*outer, rows)
    if kind not in VIRTUAL:
        return _window_shape(name, node, takes)
    declared = takes if (found := declared_shape(name, node)) is None else found
    ahead = len(declared) - len(takes)
    if (
        ahead < 0
        or declared[ahead:] != takes
        or not (set(declared[:ahead]) <= {1} or declared[:ahead] == extra)
    ):
        raise refused(name, f"reads {list(takes)}, but declares {shown(list(declared))}")
    if kind is not nir.Flatten:
        return takes
    dims = [
        ints(name, field, getattr(node, field, None), 1, -MAX_AXES, MAX_AXES)[0]
        for field in ("start_dim", "end_dim")
    ]
    # dimensions count from the first axis that is declared
    first, last = (d + len(declared) * (d < 0) - ahead for d in dims)
    # an axis of batch or time is not flattened
    alone = first >= 0 or set(declared[:ahead][first:]) <= {1}
    if not (-ahead <= first <= last < len(takes) and last >= 0 and alone):
        raise refused(name, f"flattens dimensions {dims[0]} to {dims[1]} of {list(declared)}")
    node.start_dim, node.end_dim = first, last = max(first, 0), last
    return (*takes[:first], math.prod(takes[first : last + 1]), *takes[last + 1 :])


def _without_ones(shape: Shape, axes: int) -> Shape:
    """`shape` without those first axes of 1 that are more than `axes`."""
    while len(shape) > axes and shape[0] == 1:
        shape = shape[1:]
    return shape


def _window_shape(name: str, node: Any, takes: Shape) -> Shape:
    """`[C, ...]` -> `[C_out, ...]` of a convolution or pool."""
    axes = 1 if type(node) is nir.Conv1d else 2
    if len(takes) != axes + 1:
        raise refused(name, f"reads {list(takes)}, but needs channels and {axes} more axes")
    channels, size = takes[0], takes[1:]
    if type(node) in POOLS:
        kernel, dilation, out = node.kernel_size, (1,) * axes, channels
    else:
        out, cin, *kernel = node.weight.shape if node.weight.ndim == axes + 2 else (0, 0)
        declared = getattr(node, "input_shape", None)
        fits = (
            channels == cin * node.groups and out % node.groups == 0 and node.bias.shape == (out,)
        )
        known = declared is not None and not _nan(declared)
        if not fits or (known and ints(name, "input_shape", declared, axes, 1) != size):
            raise refused(
                name,
                f"reads {list(takes)}, which its weights, bias, groups or input_shape do not fit",
            )
        dilation = node.dilation
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if node.padding == "same":
        if max(node.stride) > 1:
            raise refused(name, "pads to the 'same' size with a stride, which has no meaning")
        return (out, *size)
    slid = tuple(
        (n + 2 * p - r - 1) // s + 1
        for n, p, r, s in zip(size, node.padding, reach, node.stride, strict=True)
    )
    if min(slid) < 1:
        raise refused(name, f"cannot slide over {list(takes)}: its window is larger")
    return (out, *slid)
