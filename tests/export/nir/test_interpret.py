"""The interpreter against plain Python, node by node, and the exported graphs against their models,
spike for spike.
"""

from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support.networks import exact, lively
from torch import Tensor

from export.nir import interpreter as interpret
from export.nir.exporter import node_name, to_nir
from export.nir.interpreter import run
from zoo.arrays import Array
from zoo.danet import DANet, set_steps
from zoo.errors import ExportError, InputError, ZooError
from zoo.neurons import Lif

DTYPES = [np.float32, np.float64]
SMALL = {"widths": (4, 6), "depths": (1, 1)}
DANETS = ["danet20", "danet20b", "danet20c", "danet20d"]
BASELINES = ["spiking-resnet20", "sew-resnet20", "ms-resnet20"]


def a(*values: Any) -> Array:
    return np.array(values, np.float32)


def chain(*nodes: Any, shape: tuple[int, ...] = (2,), out: Any = None) -> nir.NIRGraph:
    """input -> n0 -> n1 ... -> output."""
    named = {
        "input": nir.Input(np.array(shape)),
        **{f"n{i}": n for i, n in enumerate(nodes)},
        "output": nir.Output(out),
    }
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)), {"dt": 0.25}, type_check=False)


def alone(node: Any, x: Any, dtype: Any = np.float64) -> Array:
    """What `node` makes of `x` `[T, ...]`, as the second of two images; the first one is zero."""
    x = np.asarray(x, np.float64)
    values = run(chain(node, shape=x.shape[1:]), np.stack([0 * x, x], 1), dtype=dtype)
    assert values["output"].dtype == dtype and np.array_equal(values["n0"], values["output"])
    return values["output"][:, 1]


# dt = 0.25. Every number is a dyadic fraction, so both precisions must give exactly what plain
# Python gives.
CURRENT = [[1.0, -0.5], [2.0, 0.5], [0.0, 4.0], [0.5, 8.0], [3.0, 1.0]]
TAU, SYN, R, LEAK, W_IN, THRESHOLD, RESET = (
    (0.5, 1.0),
    (1.0, 0.5),
    (2.0, 1.0),
    (0.25, -0.5),
    (1.0, 2.0),
    (1.0, 1.5),
    (-0.25, 0.125),
)


def by_hand(kind: type, element: int) -> list[float]:
    """One neuron in Python's own floats, from the differential equations of its class."""
    tau, syn, r, leak, w_in, threshold, reset = (
        p[element] for p in (TAU, SYN, R, LEAK, W_IN, THRESHOLD, RESET)
    )
    v = current = 0.0
    out = []
    for x in (row[element] for row in CURRENT):
        if kind in (nir.CubaLI, nir.CubaLIF):
            current += 0.25 / syn * (w_in * x - current)
            x = current
        v += 0.25 * r * x if kind in (nir.I, nir.IF) else 0.25 / tau * ((leak - v) + r * x)
        if kind in (nir.IF, nir.LIF, nir.CubaLIF):
            out.append(float(v > threshold))
            v = reset if v > threshold else v
        else:
            out.append(v)
    return out


FIRE = {"v_threshold": a(*THRESHOLD), "v_reset": a(*RESET)}
LEAKY = {"tau": a(*TAU), "r": a(*R), "v_leak": a(*LEAK)}
CUBA = {"tau_syn": a(*SYN), "tau_mem": a(*TAU), "r": a(*R), "v_leak": a(*LEAK), "w_in": a(*W_IN)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "node",
    [
        nir.I(a(*R)),
        nir.IF(a(*R), **FIRE),
        nir.LI(**LEAKY),
        nir.LIF(**LEAKY, **FIRE),
        nir.CubaLI(**CUBA),
        nir.CubaLIF(**CUBA, **FIRE),
    ],
    ids=lambda node: type(node).__name__,
)
def test_neurons(node: Any, dtype: Any) -> None:
    expected = np.stack([by_hand(type(node), element) for element in (0, 1)], 1)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(alone(node, CURRENT, dtype), expected)


def test_a_neuron_fires_strictly_above_its_threshold() -> None:
    assert alone(nir.IF(a(4), a(1)), [[1.0], [0.5], [0.0], [1.0]]).tolist() == [[0], [1], [0], [0]]
    assert alone(nir.Threshold(a(1, 1)), [[1.0, 1.25], [-1.0, 2.0]]).tolist() == [[0, 1], [0, 1]]


def test_a_neuron_is_reset_to_its_own_value() -> None:
    x = [[2.0, 2.0], [1.5, 1.5], [1.5, 1.5]]
    assert alone(nir.IF(a(4, 4), a(1, 1), a(-1, 0)), x).T.tolist() == [[1, 0, 1], [1, 1, 1]]
    assert alone(nir.IF(a(4, 4), a(1, 1)), x).T.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_nodes(dtype: Any) -> None:
    x = [[1.0, 2.0], [-1.0, 0.5]]
    weight = a([1, 2], [3, 4], [0, -1])
    assert alone(nir.Linear(weight), x, dtype).tolist() == [[5, 11, -2], [0, -1, -0.5]]
    assert alone(nir.Affine(weight, a(1, 0, 2)), x, dtype).tolist() == [[6, 11, 0], [1, -1, 1.5]]
    assert alone(nir.Scale(a(2, -4)), x, dtype).tolist() == [[2, -8], [-2, -2]]
    assert alone(nir.Linear(a([[1, 2]], [[3, 4]])), [[[1.0, 2.0], [1.0, -1.0]]]).tolist() == [
        [[5], [-1]]
    ]


def test_parameters_may_be_integers_or_numpy_scalars() -> None:
    assert alone(nir.I(np.array([4, 8])), [[1.0, 1.0]]).tolist() == [[1, 2]]
    assert alone(nir.LI(np.array([1]), np.array([2]), np.array([0])), [[1.0], [0.0]]).tolist() == [
        [0.5],
        [0.375],
    ]
    assert alone(nir.Scale(np.float32(2)), [1.0, 3.0]).tolist() == [2, 6]


def test_flatten_counts_dimensions_without_the_batch() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    for start, end, shape in (
        (0, -1, (24,)),
        (-3, -1, (24,)),
        (1, -1, (2, 12)),
        (0, 1, (6, 4)),
        (1, 1, (2, 3, 4)),
    ):
        assert np.array_equal(
            alone(nir.Flatten({"input": np.array([2, 3, 4])}, start, end), x), x.reshape(1, *shape)
        )


def slid(
    x: Array, weight: Array, bias: Any, stride: Any, pads: Any, dilation: Any, groups: int
) -> Array:
    """A two-dimensional convolution of `[C, H, W]`, element by element; `pads` before and after,
    for each axis.
    """
    x = np.pad(x, ((0, 0), *pads))
    (cout, cin, kh, kw), (_, height, width) = weight.shape, x.shape
    rows = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((cout, rows, columns))
    for o, i, j in np.ndindex(*out.shape):
        out[o, i, j] = bias[o] + sum(
            weight[o, c, m, n]
            * x[
                o // (cout // groups) * cin + c,
                i * stride[0] + m * dilation[0],
                j * stride[1] + n * dilation[1],
            ]
            for c, m, n in np.ndindex(cin, kh, kw)
        )
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "pads", "dilation", "groups"),
    [
        ((3, 3), 1, 1, [(1, 1), (1, 1)], 1, 1),
        ((3, 2), (2, 1), (1, 0), [(1, 1), (0, 0)], (1, 2), 2),
        ((1, 1), 2, 0, [(0, 0), (0, 0)], 1, 4),
        ((2, 3), 1, "same", [(0, 1), (2, 2)], (1, 2), 1),
        ((2, 2), (1, 2), "valid", [(0, 0), (0, 0)], 1, 2),
    ],
)
def test_convolutions(
    kernel: Any, stride: Any, padding: Any, pads: Any, dilation: Any, groups: int, dtype: Any
) -> None:
    weight = np.random.default_rng(0).integers(-4, 5, (8, 4 // groups, *kernel)).astype(np.float32)
    x = np.random.default_rng(1).integers(-4, 5, (2, 4, 5, 7)).astype(np.float64)
    bias = np.arange(8, dtype=np.float32)
    node = nir.Conv2d((5, 7), weight, stride, padding, dilation, groups, bias)
    pair = [(v, v) if isinstance(v, int) else v for v in (stride, dilation)]
    expected = np.stack([slid(frame, weight, bias, pair[0], pads, pair[1], groups) for frame in x])
    assert np.array_equal(alone(node, x, dtype), expected)
    if isinstance(stride, int) and isinstance(dilation, int):
        node1 = nir.Conv1d(7, weight[:, :, 0], stride, padding, dilation, groups, bias)
        rows = [
            slid(
                f[:, :1],
                weight[:, :, :1],
                bias,
                (1, stride),
                [(0, 0), pads[1]],
                (1, dilation),
                groups,
            )[:, 0]
            for f in x
        ]
        assert np.array_equal(alone(node1, x[:, :, 0], dtype), np.stack(rows))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 2), (2, 1), (2, 1)), ((5, 7), (9, 9), (0, 0))],
)
def test_pools(kernel: Any, stride: Any, padding: Any) -> None:
    x = np.random.default_rng(1).integers(-4, 5, (2, 3, 5, 7)).astype(np.float64)
    weight = np.repeat(np.eye(3), prod(kernel), 1).reshape(3, 3, *kernel)
    expected = np.stack(
        [slid(frame, weight, [0] * 3, stride, [(p, p) for p in padding], (1, 1), 1) for frame in x]
    )
    arrays = (np.array(kernel), np.array(stride), np.array(padding))
    assert np.array_equal(alone(nir.SumPool2d(*arrays), x), expected)
    np.testing.assert_allclose(
        alone(nir.AvgPool2d(*arrays), x), expected / prod(kernel), rtol=1e-12
    )


def test_delays_of_whole_steps() -> None:
    x = [[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [3.0, 30.0, 300.0]]
    assert alone(nir.Delay(a(0, 0.25, 2.5)), x).tolist() == [[1, 0, 0], [2, 10, 0], [3, 20, 0]]


def looped(delay: float) -> nir.NIRGraph:
    """`y[t] = x[t] + y[t - delay] / 2`."""
    nodes = {
        "input": nir.Input(np.array([1])),
        "sum": nir.Scale(a(1)),
        "late": nir.Delay(a(delay)),
        "half": nir.Scale(a(0.5)),
        "output": nir.Output(np.array([1])),
    }
    edges = [
        ("input", "sum"),
        ("half", "sum"),
        ("sum", "late"),
        ("late", "half"),
        ("sum", "output"),
    ]
    return nir.NIRGraph(nodes, edges, {"dt": 0.25}, type_check=False)


def test_a_cycle_needs_a_delay() -> None:
    assert run(looped(0.25), np.ones((4, 1, 1)))["output"].ravel().tolist() == [1, 1.5, 1.75, 1.875]
    assert run(looped(0.5), np.ones((4, 1, 1)))["output"].ravel().tolist() == [1, 1, 1.5, 1.5]
    with pytest.raises(ExportError, match=r"cycle without a Delay .*'half'"):
        run(looped(0), np.ones((4, 1, 1)))


def test_nested_graphs_are_flattened() -> None:
    inner = nir.NIRGraph.from_list(nir.Scale(a(2, 2)), nir.Threshold(a(1, 1)))
    middle = nir.NIRGraph(
        {"i": nir.Input([2]), "deep": inner, "o": nir.Output([2])},
        [("i", "deep"), ("deep", "o"), ("i", "o")],
    )
    values = run(chain(nir.Scale(a(1, 4)), middle), np.full((1, 1, 2), 0.5))
    assert values["n1.deep.scale"].ravel().tolist() == [1, 4]
    assert values["n1.deep.threshold"].ravel().tolist() == [0, 1]
    assert values["output"].ravel().tolist() == [0.5, 3]


def test_the_graph_knows_its_time_step() -> None:
    graph = chain(nir.I(a(1, 1)))
    for dt in (None, 0.25):
        assert run(graph, np.ones((1, 1, 2)), dt=dt)["output"].ravel().tolist() == [0.25, 0.25]
    with pytest.raises(
        InputError,
        match=r"dt = 8 contradicts the graph, whose metadata say dt = 0.25: leave dt out",
    ):
        run(graph, np.ones((1, 1, 2)), dt=8)
    graph.metadata = {}
    assert run(graph, np.ones((1, 1, 2)), dt=8)["output"].ravel().tolist() == [8, 8]
    np.testing.assert_allclose(run(graph, np.ones((1, 1, 2)))["output"], 1e-4)


# Exported networks


def recorded(model: DANet, x: Tensor) -> tuple[Array, dict[str, Array]]:
    """The logits, and every neuron's spikes `[T, B, C, H, W]`."""
    spikes: dict[str, Array] = {}
    for path, module in model.named_modules():
        if isinstance(module, Lif):
            module.register_forward_hook(
                lambda m, _, out, path=path: spikes.update(
                    {node_name(path): out.unflatten(0, (m.steps, -1)).numpy()}
                )
            )
    with torch.inference_mode():
        return model(x).numpy(), spikes


def still(x: Tensor, steps: int) -> Array:
    return np.broadcast_to(x.numpy(), (steps, *x.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("name", [*DANETS, "spiking-resnet20", "sew-resnet20"])
def test_exact_networks_are_equal_from_end_to_end(name: str, steps: int, dtype: Any) -> None:
    model = exact(f"{name}-t4.fmnist", **SMALL)
    set_steps(model, steps)
    x = torch.randint(-8, 9, (3, 1, 8, 8)) / 4
    values = run(to_nir(model, dialect="native"), still(x, steps), dtype=dtype)
    logits, spikes = recorded(model, x)
    for node, train in spikes.items():
        assert 0 < train.mean() < 1, f"{node}: nothing to compare"
        assert np.array_equal(values[node], train), node
    np.testing.assert_allclose(values["output"].mean(0), logits, atol=1e-6)


def assert_neurons_agree(model: DANet, graph: nir.NIRGraph, values: dict[str, Array]) -> None:
    """Every neuron of the model, given the graph's own currents, fires the graph's spikes."""
    for path, module in model.named_modules():
        if isinstance(module, Lif):
            name = node_name(path)
            current = sum(values[a] for a, b in graph.edges if b == name) + getattr(
                graph.nodes[name], "v_leak", np.float32(0)
            )
            expected = (
                module(torch.from_numpy(current).flatten(0, 1))
                .unflatten(0, (module.steps, -1))
                .numpy()
            )
            assert 0 < expected.mean() < 1, f"{path}: nothing to compare"
            assert np.array_equal(values[name], expected), path


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("name", [*DANETS, *BASELINES])
def test_every_neuron_of_an_ordinary_network_given_the_graphs_own_values(
    name: str, steps: int
) -> None:
    model = lively(f"{name}-t4.fmnist", 9, **SMALL)
    set_steps(model, steps)
    graph = to_nir(model, dialect="native")
    values = run(graph, still(torch.randn(3, 1, 9, 9), steps))
    assert_neurons_agree(model, graph, values)


@pytest.mark.parametrize("name", ["danet18-t2", "sew-resnet18-t2"])
def test_the_stems_pools_and_the_file(name: str, tmp_path: Path) -> None:
    model = exact(name, 17, **SMALL)
    x = torch.randint(-8, 9, (3, 3, 17, 17)) / 4
    nir.write(tmp_path / "model.nir", to_nir(model))
    graph = nir.read(tmp_path / "model.nir")
    values = run(graph, still(x, 2))
    assert_neurons_agree(model, graph, values)
    logits, spikes = recorded(model, x)
    if name.startswith("sew"):
        assert all(np.array_equal(values[node], train) for node, train in spikes.items())
        np.testing.assert_allclose(values["output"].mean(0), logits, atol=1e-5)
    else:  # the stem's average over 3 x 3 pixels is rounded
        np.testing.assert_allclose(
            values["stem_pool"][0], model.stem(x, True)[:3].detach().numpy(), atol=1e-5
        )


@pytest.mark.parametrize("name", ["danet20", "danet20b", "sew-resnet20", "ms-resnet20"])
def test_no_edge_can_be_left_out_unnoticed(name: str) -> None:
    graph = to_nir(lively(f"{name}-t4.fmnist", 8, **SMALL))
    x = still(torch.randn(3, 1, 8, 8), 4)
    whole = run(graph, x)
    refused = changed = 0
    for edge in graph.edges:
        fewer = nir.NIRGraph(
            graph.nodes, [e for e in graph.edges if e != edge], graph.metadata, type_check=False
        )
        try:
            values = run(fewer, x)
        except ExportError as error:
            assert "reads no other node" in str(error)
            refused += 1
        else:
            assert not np.array_equal(values["output"], whole["output"]), edge
            changed += 1
    assert refused and changed and refused + changed == len(graph.edges)


# Refusals


def with_edge(*edges: tuple[str, str], **nodes: Any) -> nir.NIRGraph:
    graph = chain(nir.Scale(a(1, 1)))
    return nir.NIRGraph(
        {**graph.nodes, **nodes}, [*graph.edges, *edges], {"dt": 0.25}, type_check=False
    )


def conv(**fields: Any) -> Any:
    values = {
        "input_shape": None,
        "weight": np.ones((2, 1, 3, 3)),
        "stride": 1,
        "padding": 1,
        "dilation": 1,
        "groups": 1,
    }
    return nir.Conv2d(**{**values, "bias": np.ones(2), **fields})


def image(node: Any) -> nir.NIRGraph:
    return chain(node, shape=(1, 4, 4))


def pool(kernel: Any, stride: Any = (1, 1), padding: Any = (0, 0)) -> nir.NIRGraph:
    return image(nir.SumPool2d(*map(np.array, (kernel, stride, padding))))


class Unheard(nir.Scale):
    """A node that nobody knows."""


def two_ways() -> Any:
    return nir.NIRGraph(
        {"a": nir.Input([2]), "b": nir.Input([2]), "o": nir.Output([2])}, [("a", "o"), ("b", "o")]
    )


def other(**metadata: Any) -> nir.NIRGraph:
    graph = chain(nir.Scale(a(1, 1)))
    graph.metadata = metadata
    return graph


REFUSED: list[tuple[Callable[[], nir.NIRGraph], str]] = [
    (lambda: with_edge(("n0", "nowhere")), "'nowhere' has an end that is no node"),
    (lambda: with_edge(("nowhere", "n0")), "'nowhere' -> 'n0' has an end that is no node"),
    (lambda: with_edge(("input", "n0")), "'input' -> 'n0' is there twice"),
    (lambda: with_edge(("n0", "n0")), "cycle without a Delay of a step or more: 'n0' -> 'n0'"),
    (lambda: with_edge(("n0", "input")), "'input' reads another node"),
    (lambda: with_edge(lost=nir.Scale(a(1, 1))), "'lost' reads no other node"),
    (lambda: with_edge(more=nir.Input([2])), "has 2 Input nodes"),
    (
        lambda: with_edge(("input", "m"), ("m", "output"), m=nir.Linear(np.ones((3, 2)))),
        r"'output' reads \[2\], but 'm' gives \[3\]",
    ),
    (lambda: chain(Unheard(a(1, 1))), "'n0' is of the unknown type Unheard"),
    (lambda: chain(nir.Scale(a(1, 1, 1))), r"'n0' reads \[2\], but its scale has the shape \[3\]"),
    (lambda: chain(nir.Scale(a(1, np.nan))), "scale that are not finite"),
    (lambda: chain(nir.Delay(a(0, 0, 0.25))), r"'n0' reads \[3\], but 'input' gives \[2\]"),
    (lambda: chain(nir.Delay(a(0.1, 0.25))), "whole steps of 0.25 seconds"),
    (lambda: chain(nir.Delay(a(-0.25, 0.25))), "whole steps of 0.25 seconds"),
    (lambda: chain(nir.LI(a(0.1, 1), a(1, 1), a(0, 0))), "time constant below the time step"),
    (lambda: chain(nir.Linear(np.ones((2, 3)))), r"has weights \[2, 3\]"),
    (lambda: chain(nir.Affine(np.ones((3, 2)), np.ones(2))), "bias that does not fit"),
    (lambda: chain(nir.Flatten(None, 1, -1)), r"flattens dimensions 1 to -1 of \[2\]"),
    (
        lambda: chain(nir.Flatten({"input": np.array([3])}, 0, -1)),
        r"reads \[2\], but declares \[3\]",
    ),
    (lambda: chain(nir.Scale(a(1, 1)), out=[7]), r"'output' reads \[2\], but declares \[7\]"),
    (lambda: chain(conv()), "needs channels and 2 more axes"),
    (lambda: image(conv(weight=np.ones((2, 2, 3, 3)))), "weights, bias, groups or input_shape"),
    (lambda: image(conv(weight=np.ones((2, 1, 3)))), "weights, bias, groups or input_shape"),
    (lambda: image(conv(bias=np.ones(3))), "weights, bias, groups or input_shape"),
    (lambda: image(conv(input_shape=(5, 4))), "weights, bias, groups or input_shape"),
    (lambda: image(conv(groups=0)), "1 integers from 1"),
    (lambda: image(conv(stride=0)), "2 integers from 1"),
    (lambda: image(conv(padding=-1)), "2 integers from 0"),
    (lambda: image(conv(padding=10**9)), "2 integers from 0"),
    (lambda: image(conv(padding=1 << 18)), "would take"),
    (lambda: image(conv(padding="same", stride=2)), "'same' size with a stride"),
    (lambda: image(conv(padding=0, dilation=4)), "cannot slide over"),
    (lambda: pool((5, 1)), "cannot slide over"),
    (lambda: pool((1 << 19, 1 << 19), padding=(1 << 18, 1 << 18)), "would take"),
    (lambda: pool((1, 1), stride=(0, 1)), "2 integers from 1"),
    (lambda: pool((1.5, 1)), "2 integers from 1"),
    (lambda: pool(np.ones((30, 30))), "2 integers from 1"),
    (lambda: chain(two_ways()), "'n0' is a graph with other than one Input and one Output"),
    (lambda: chain(other(dt=1.0)), "'n0' is a graph of another dt"),
    (lambda: other(dt=0.0), "dt = 0.0 is no time step"),
    (lambda: other(dt="fast"), "dt = 'fast' is no time step"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_graph_that_cannot_be_run_is_refused_in_one_line(
    make: Callable[[], nir.NIRGraph], message: str
) -> None:
    graph = make()
    x = np.ones((2, 1, *graph.nodes["input"].input_type["input"]))
    with pytest.raises(ExportError, match=message) as raised:
        run(graph, x)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", [(2,), (0, 1, 2), (2, 0, 2), (2, 1, 3), (2, 1, 2, 1)])
def test_inputs_that_do_not_fit_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"reads|inputs of shape") as raised:
        run(chain(nir.Scale(a(1, 1))), np.ones(shape))
    assert "\n" not in str(raised.value)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = chain(nir.Scale(a(1, 1)))
    huge.nodes["input"] = nir.Input(np.array([10**9, 10**9]))
    with pytest.raises(InputError, match="declares"):
        run(huge, np.ones((2, 1, 2)))
    monkeypatch.setattr(interpret, "MAX_BYTES", 8 * 3 * 4 * 5 * 2)
    run(chain(nir.Scale(a(1, 1))), np.ones((4, 5, 2)))
    with pytest.raises(ExportError, match="all values would take"):
        run(chain(nir.Scale(a(1, 1))), np.ones((5, 5, 2)))
    with pytest.raises(ZooError, match=r"valid are numpy\.float32"):
        run(chain(nir.Scale(a(1, 1))), np.ones((1, 1, 2)), dtype=np.float16)
