"""NIR graphs to test with: chains, and random ones of every primitive, in numbers that no sum
rounds.
"""

from itertools import pairwise
from typing import Any

import nir
import numpy as np

from export.nir.interpreter import run
from zoo.arrays import Array

DT = 0.25


def a(*values: Any) -> Array:
    return np.array(values, np.float32)


def chain(*nodes: Any, shape: Any = (2,), **metadata: Any) -> Any:
    """input -> n0 -> n1 ... -> output."""
    shape = None if shape is None else np.array(shape)
    named = {
        "input": nir.Input(shape),
        **{f"n{i}": n for i, n in enumerate(nodes)},
        "output": nir.Output(None),
    }
    return nir.NIRGraph(named, list(pairwise(named)), {"dt": DT} | metadata, type_check=False)


def numbers(rng: np.random.Generator, shape: Any, *choices: float) -> Array:
    return rng.choice(np.array(choices, np.float32), tuple(shape))


def neuron(kind: type, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Parameters for each element, of the kinds that some tool writes: other resets and leaks than
    zero, a gain below it.
    """
    tau = {key: numbers(rng, shape, 0.25, 0.5, 1, 2) for key in ("tau", "tau_syn", "tau_mem")}
    values = tau | {
        "r": numbers(rng, shape, 0, 0.5, 1, 2, 4, -1),
        "v_leak": numbers(rng, shape, 0, 0.25, -0.5),
        "w_in": numbers(rng, shape, 1, 2),
        "v_threshold": numbers(rng, shape, -0.25, 0, 0.25, 0.5, 1),
        "v_reset": numbers(rng, shape, *rng.choice([0, 0, -0.25, 0.5], 2)),
    }
    return kind(**{key: value for key, value in values.items() if key in kind.__dataclass_fields__})


KINDS = [nir.I, nir.IF, nir.LI, nir.LIF, nir.CubaLI, nir.CubaLIF]
KINDS += [nir.Scale, nir.Threshold, nir.Delay, nir.Affine, nir.Linear, nir.Flatten, nir.NIRGraph]
KINDS += [nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d]


def node(kind: type, rng: np.random.Generator, shape: tuple[int, ...], depth: int) -> Any:
    """A node that reads `shape`, or None if none of this kind can."""
    draw = rng.integers
    if kind in KINDS[:6]:
        return neuron(kind, rng, shape)
    if kind is nir.Scale:
        return nir.Scale(numbers(rng, shape, -1, 0.5, 2))
    if kind is nir.Threshold:
        return nir.Threshold(numbers(rng, shape, -0.25, 0, 0.5))
    if kind is nir.Delay:
        return nir.Delay(DT * rng.integers(0, 4, shape).astype(np.float32))
    if kind in (nir.Affine, nir.Linear):
        weight, bias = (
            draw(-4, 5, (*shape[:-1], 3, shape[-1])) / 8,
            draw(-4, 5, (*shape[:-1], 3)) / 8,
        )
        return nir.Affine(weight, bias) if kind is nir.Affine else nir.Linear(weight)
    if kind is nir.Flatten:
        return nir.Flatten({"input": np.array(shape)}, 0 if draw(2) else -len(shape), -1)
    if kind is nir.NIRGraph:
        return grown(rng, shape, 2, depth + 1) if depth < 2 else None
    axes = 1 if kind is nir.Conv1d else 2
    if len(shape) != axes + 1 or min(shape[1:]) < 2:
        return None
    if kind in (nir.SumPool2d, nir.AvgPool2d):
        return kind(draw(1, 3, 2), draw(1, 3, 2), draw(0, 3, 2))
    groups, kernel = (2 if shape[0] % 2 == 0 and draw(2) else 1), draw(1, 3, axes)
    weight, bias = draw(-4, 5, (4, shape[0] // groups, *kernel)) / 8, draw(-4, 5, 4) / 8
    padding, size = rng.choice(["same", "valid", "1"]), shape[1:]
    stride, dilation = (1, int(draw(1, 3))) if padding == "same" else (int(draw(1, 3)), 1)
    padding = 1 if padding == "1" else str(padding)
    return kind(size[0] if axes == 1 else size, weight, stride, padding, dilation, groups, bias)


def grown(
    rng: np.random.Generator, shape: tuple[int, ...], size: int, depth: int = 0, loops: int = 0
) -> Any:
    """A random graph of about `size` nodes with skips and `loops`; it neither rounds nor repeats
    itself.
    """
    graph, names = chain(shape=shape), ["input"]
    graph.edges = []
    shapes, reads = {"input": shape}, {}
    for _ in range(size):
        made = None
        while made is None:
            made = node(KINDS[rng.integers(len(KINDS))], rng, shapes[names[-1]], depth)
        name = rng.choice(["", "a.", "b/"]) + f"n{len(names)}"
        graph.nodes[name] = made
        reads[name] = shapes[names[-1]]
        twins = [other for other in names[:-1] if shapes[other] == reads[name]]
        graph.edges += [(source, name) for source in (names[-1], *twins[: rng.integers(3)])]
        shapes[name] = run(chain(made, shape=reads[name]), np.zeros((1, 1, *reads[name])))[
            "output"
        ].shape[2:]
        names.append(name)
    graph.edges.append((names[-1], "output"))
    for source in names[1:]:
        targets = [target for target in names[1:] if reads[target] == shapes[source]]
        if loops and targets:
            graph.nodes[f"late {loops}"] = nir.Delay(DT * rng.integers(1, 3, shapes[source]))
            graph.edges += [(source, f"late {loops}"), (f"late {loops}", targets[0])]
            loops -= 1
    return graph


def kinds(graph: Any) -> set[type]:
    return {type(n) for n in graph.nodes.values()}.union(
        *(kinds(n) for n in graph.nodes.values() if isinstance(n, nir.NIRGraph))
    )
