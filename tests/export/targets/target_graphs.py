"""Small NIR graphs, made by hand."""

from collections.abc import Sequence
from typing import Any

import nir
import numpy as np

from zoo.arrays import Array

DT = 1e-4


class Graph:
    """Nodes and edges, one after the other. Weights are integers of 8 bits over 64, so that a
    threshold of 1 is 64 steps.
    """

    def __init__(self, *shape: int) -> None:
        self.nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
        self.edges: list[tuple[str, str]] = []
        self.shapes: dict[str, tuple[int, ...]] = {"input": shape}
        self.random = np.random.default_rng(0)

    def add(
        self, name: str, node: nir.NIRNode, sources: Sequence[str], shape: tuple[int, ...]
    ) -> str:
        self.nodes[name], self.shapes[name] = node, shape
        self.edges += [(source, name) for source in sources]
        return name

    def weights(self, *shape: int) -> Array:
        weight = self.random.integers(-60, 61, shape).astype(np.float32) / 64
        weight.flat[0] = 127 / 64
        return weight

    def conv(
        self,
        name: str,
        *sources: str,
        f: int,
        k: int | tuple[int, int] = 3,
        stride: Any = 1,
        **options: Any,
    ) -> str:
        c, *size = self.shapes[sources[0]]
        kernel, strides = np.broadcast_to(k, 2), np.broadcast_to(stride, 2)
        padding = np.broadcast_to(options.pop("padding", 1 if k == 3 else 0), 2)
        dilation, groups = np.broadcast_to(options.pop("dilation", 1), 2), options.pop("groups", 1)
        weight = options.pop("weight", None)
        weight = self.weights(f, c // groups, *kernel) if weight is None else weight
        bias = np.full(f, options.pop("bias", 0.0), np.float32)
        assert not options
        ints: list[tuple[int, int]] = [(int(a), int(b)) for a, b in (strides, padding, dilation)]
        node = nir.Conv2d((size[0], size[1]), weight, ints[0], ints[1], ints[2], groups, bias)
        out = (
            (n + 2 * p - d * (m - 1) - 1) // s + 1
            for n, p, d, m, s in zip(size, ints[1], ints[2], kernel, ints[0], strict=True)
        )
        return self.add(name, node, sources, (f, *map(int, out)))

    def dense(self, name: str, *sources: str, f: int) -> str:
        shape = self.shapes[sources[0]]
        if len(shape) > 1:
            flat = nir.Flatten({"input": np.array(shape)}, -len(shape), -1)
            sources = (self.add(f"{name}_flat", flat, sources, (int(np.prod(shape)),)),)
        weight = self.weights(f, self.shapes[sources[0]][0])
        return self.add(name, nir.Affine(weight, np.zeros(f, np.float32)), sources, (f,))

    def pool(
        self, name: str, *sources: str, size: Any = 2, stride: Any = None, average: bool = False
    ) -> str:
        kernel = np.broadcast_to(size, 2).copy()
        strides = np.broadcast_to(size if stride is None else stride, 2).copy()
        c, h, w = self.shapes[sources[0]]
        shape = (
            c,
            (h - int(kernel[0])) // int(strides[0]) + 1,
            (w - int(kernel[1])) // int(strides[1]) + 1,
        )
        kind = nir.AvgPool2d if average else nir.SumPool2d
        return self.add(name, kind(kernel, strides, np.zeros(2, int)), sources, shape)

    def full(self, name: str, value: float) -> Array:
        return np.full(self.shapes[name], value, np.float32)

    def subtract(self, name: str, *sources: str, threshold: float = 1.0) -> str:
        """Integrate and fire, its threshold subtracted; returns the node whose output is the
        spikes.
        """
        shape, membrane = self.shapes[sources[0]], f"{name}_membrane"
        self.add(membrane, nir.I(self.full(sources[0], 1 / DT)), sources, shape)
        self.add(name, nir.Threshold(self.full(membrane, threshold)), (membrane,), shape)
        self.add(f"{name}_scale", nir.Scale(self.full(name, -threshold)), (name,), shape)
        self.add(f"{name}_delay", nir.Delay(self.full(name, DT)), (f"{name}_scale",), shape)
        self.edges.append((f"{name}_delay", membrane))
        return name

    def zero(self, name: str, *sources: str, threshold: Any = 1.0, v_reset: float = 0.0) -> str:
        """Integrate and fire, reset to zero."""
        first = sources[0]
        node = nir.IF(
            self.full(first, 1 / DT),
            self.full(first, 1) * np.float32(threshold),
            self.full(first, v_reset),
        )
        return self.add(name, node, sources, self.shapes[first])

    def leaky(
        self, name: str, *sources: str, beta: float = 0.5, threshold: float = 1.0, leak: float = 0.0
    ) -> str:
        first, one = sources[0], self.full(sources[0], 1)
        node = nir.LIF(
            one * np.float32(DT / (1 - beta)),
            one,
            one * np.float32(leak),
            one * np.float32(threshold),
            0 * one,
        )
        return self.add(name, node, sources, self.shapes[first])

    def done(self, *sources: str) -> nir.NIRGraph:
        self.add(
            "output",
            nir.Output({"output": np.array(self.shapes[sources[0]])}),
            sources,
            self.shapes[sources[0]],
        )
        return nir.NIRGraph(self.nodes, self.edges, metadata={"dt": DT}, type_check=False)


def speck8(
    shape: tuple[int, int, int], widths: tuple[int, int, int] = (16, 32, 64), stem: int = 1
) -> nir.NIRGraph:
    """Stem and three stages of one block, without shortcuts; two links whose spikes meet those of
    the stages. Nine convolutions.
    """
    graph = Graph(*shape)
    spikes = graph.subtract("stem_if", graph.conv("stem_conv", "input", f=widths[0], stride=stem))
    before: list[str] = [spikes]
    for stage, width in enumerate(widths, 1):
        inner = graph.conv(f"stage{stage}_conv1", *before, f=width, stride=1 if stage == 1 else 2)
        inner = graph.conv(
            f"stage{stage}_conv2", graph.subtract(f"stage{stage}_if1", inner), f=width
        )
        after = [graph.subtract(f"stage{stage}_if2", inner)]
        if stage > 1:
            size, odd = 2, graph.shapes[before[0]][1] % 2  # an odd image is padded to an even one
            link = graph.conv(f"link{stage}_conv", *before, f=width, k=size, stride=2, padding=odd)
            after.append(graph.subtract(f"link{stage}_if", link))
        before = after
    side = graph.shapes[before[0]][1]
    return graph.done(graph.dense("fc", graph.pool("readout", *before, size=side), f=10))
