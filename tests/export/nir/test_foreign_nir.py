"""NIR files that other tools write and nir itself refuses: what can mean one thing only is read,
the rest is refused by name.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import torch
from support.nir_graphs import DT, a, chain

import zoo
from export.energy import estimate
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.nir.reader import read_nir
from export.onnx.from_nir import write_nir_onnx
from export.targets.checker import check
from zoo.errors import ExportError, InputError


def written(path: Path, **nodes: dict[str, Any]) -> Path:
    """A file of a chain of nodes, each with a `type` and data sets or, of dicts, groups."""
    with h5py.File(path, "w") as file:
        file["version"] = b"0.1.1"
        file["node/type"] = b"NIRGraph"
        file.create_dataset(
            "node/edges", data=np.array([*pairwise(nodes)], object), dtype=h5py.string_dtype()
        )
        file["node/metadata/dt"] = DT
        for name, values in nodes.items():
            for key, value in values.items():
                place = f"node/nodes/{name}/{key}"
                if isinstance(value, dict):
                    file.create_group(place).update(value)
                else:
                    file[place] = value
    return path


ENDS = (
    {"i": {"type": b"Input", "shape": np.array([1])}},
    {"o": {"type": b"Output", "shape": np.array([1])}},
)
LIF = {
    "type": b"LIF",
    "tau": np.array([2 * DT]),
    "r": np.float64(2),
    "v_leak": np.float64(0),
    "v_threshold": np.array([1.0]),
}
CUBA = {
    "type": b"CubaLIF",
    "tau_syn": np.float64(DT),
    "tau_mem": 2 * DT,
    "r": 2,
    "v_leak": False,
    "v_threshold": np.array([1]),
}


@pytest.mark.parametrize(
    "node",
    [
        LIF,
        LIF | {"tau": 2 * DT, "v_threshold": 1},
        LIF | {"v_reset": False, "r": np.int8(2), "v_leak": np.array([False])},
        LIF | {"type": np.bytes_("LIF"), "metadata": {}},
        LIF
        | {"type": "LIF", "metadata": {"tool": "x", "n": np.uint8(3), "list": np.array([1.5, 2])}},
        LIF | {"input_type": {"input": np.array([1])}, "output_type": {"output": np.array([1])}},
        CUBA,
        CUBA | {"w_in": np.array([1.0])},
    ],
    ids=[
        "() and (1,)",
        "all scalars",
        "bool and int",
        "bytes",
        "text",
        "declared types",
        "cuba",
        "cuba with w_in",
    ],
)
def test_parameters_of_a_neuron_in_any_shape_and_type(node: dict[str, Any], tmp_path: Path) -> None:
    start, end = ENDS
    path = written(tmp_path / "x.nir", **start, n=node, **end)
    assert zoo.from_nir(path)(torch.ones(4, 1, 1)).flatten().tolist() == [0, 1, 0, 1]
    assert run(read_nir(path), np.ones((4, 1, 1)))["o"].ravel().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 1), (1, 2, 3, 4), (1, 1, 2, 1, 1), (1, 1)])
def test_parameters_with_axes_of_one_hold_along_these(shape: tuple[int, ...]) -> None:
    values = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    net = chain(nir.Threshold(values), shape=(2, 3, 4))
    full = values.reshape(shape[-3:] if len(shape) > 2 else ())
    assert np.array_equal(check_graph(net).nodes["n0"].threshold, np.broadcast_to(full, (2, 3, 4)))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 3, 4), (2, 3)])
def test_parameters_that_could_mean_several_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ExportError, match=r"'n0' reads \[2, 3, 4\], but its threshold has the shape"
    ):
        check_graph(chain(nir.Threshold(np.ones(shape)), shape=(2, 3, 4)))


CONV = {
    "type": b"Conv2d", "weight": np.arange(18.0).reshape(2, 1, 3, 3), "bias": np.zeros(2),
    "stride": np.array([1, 1]), "padding": np.array([1, 1]), "dilation": np.array([1, 1]),
    "groups": 1, "input_shape": np.array([4, 5]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "dropped"),
    [
        ({}, "bias"),
        ({"padding": b"SAME"}, ""),
        ({"padding": "Same"}, ""),
        (
            {
                "stride": np.array([1.0, 1.0]),
                "padding": 1.0,
                "dilation": np.float32(1),
                "groups": np.float64(1),
            },
            "",
        ),
        ({"input_shape": np.nan}, ""),
        ({"input_shape": np.array([4.0, 5.0])}, ""),
        ({}, "input_shape"),
    ],
    ids=["no bias", "SAME", "Same", "floats", "NaN", "float shape", "no input shape"],
)
def test_a_convolution_in_other_words(
    changes: dict[str, Any], dropped: str, tmp_path: Path
) -> None:
    start, end = (
        {"i": {"type": "Input", "shape": np.array([1, 4, 5])}},
        {"o": {"type": "Output", "shape": np.array([2, 4, 5])}},
    )
    x = np.random.default_rng(0).normal(size=(2, 1, 1, 4, 5))
    expected = run(read_nir(written(tmp_path / "plain.nir", **start, n=CONV, **end)), x)["o"]
    node = {key: value for key, value in (CONV | changes).items() if key != dropped}
    path = written(tmp_path / "x.nir", **start, n=node, **end)
    assert np.array_equal(run(read_nir(path), x)["o"], expected)
    np.testing.assert_allclose(
        zoo.from_nir(path)(torch.from_numpy(x).float()).detach(), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stride": np.array([1.5, 1])}, "as its stride, where 2 integers"),
        ({"padding": b"reflect"}, "has a padding that is no array of numbers"),
        ({"groups": np.nan}, "has a groups that is no array of numbers"),
        ({"dilation": True}, r"'n' \(Conv2d\) does not fit together"),
        ({"colour": 1}, r"'n' \(Conv2d\) has no place for colour; valid are bias"),
    ],
)
def test_what_a_convolution_leaves_open_is_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(
        tmp_path / "x.nir",
        i={"type": "Input", "shape": np.array([1, 4, 5])},
        n=CONV | changes,
        o=ENDS[1]["o"],
    )
    with pytest.raises((ExportError, InputError), match=message):
        check_graph(read_nir(path))


def test_biases_of_matrices_may_be_missing(tmp_path: Path) -> None:
    node = {"type": "Affine", "weight": np.array([[1, 2], [3, 4], [5, 6]])}
    path = written(
        tmp_path / "x.nir",
        i={"type": "Input", "shape": np.array([2])},
        n=node,
        o={"type": "Output"},
    )
    assert run(read_nir(path), np.ones((1, 1, 2)))["o"].ravel().tolist() == [3, 7, 11]


@pytest.mark.parametrize("key", ["input_type", "shape"])
@pytest.mark.parametrize("value", [np.array([1]), {"input": np.array([1])}])
def test_the_shape_of_an_input_by_any_name(key: str, value: Any, tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.nir",
        i={"type": "Input", key: value},
        n=LIF,
        o={"type": "Output", "output_type": value},
    )
    assert check_graph(read_nir(path)).shapes["o"] == (1,)


def test_a_shape_that_is_given_is_taken_as_it_is() -> None:
    net = chain(nir.Linear(a([1, 2], [3, 4])), shape=None)
    assert check_graph(net, shape=(2,)).shapes["output"] == (2,)
    with pytest.raises(ExportError, match=r"'n0' reads \[1, 2\], but has weights"):
        run(net, np.ones((3, 1, 1, 2)))


def test_an_input_without_a_shape_takes_the_one_given(tmp_path: Path) -> None:
    path = written(tmp_path / "x.nir", i={"type": "Input"}, n=LIF, o={"type": "Output"})
    assert zoo.from_nir(path, shape=(3,)).input_shape == (3,)
    with pytest.raises(
        ExportError, match=r"'i' declares no shape: give it one, as in shape=\(1, 28, 28\)"
    ):
        zoo.from_nir(path)


# Axes of batch and time in declared shapes


def declaring(shape: Any, *nodes: Any, out: Any = None) -> Any:
    net = chain(*nodes, shape=shape)
    net.nodes["output"] = nir.Output(None if out is None else np.array(out))
    return net


def classifier(batch: int) -> Any:
    """Convolution, neurons, Flatten and matrix, with an axis of the batch in every declared shape,
    as exporters infer them.
    """
    conv = nir.Conv2d((4, 5), np.ones((2, 1, 3, 3)), 1, 1, 1, 1, np.zeros(2))
    lif = nir.LIF(*(np.array(value) for value in (2 * DT, 2.0, 0.0, 4.0)))
    flat = nir.Flatten({"input": np.array([batch, 2, 4, 5])}, 1, -1)
    return declaring(
        [batch, 1, 4, 5], conv, lif, flat, nir.Linear(np.ones((3, 40))), out=[batch, 3]
    )


@pytest.mark.parametrize("shape", [None, (1, 4, 5)])
def test_axes_of_one_before_the_input_are_left_out_on_every_way(shape: Any, tmp_path: Path) -> None:
    net = classifier(1)
    assert check_graph(net, shape=shape).shapes["output"] == (3,)
    assert (check_graph(net).nodes["n2"].start_dim, check_graph(net).nodes["n2"].end_dim) == (0, 2)
    x = np.random.default_rng(0).integers(0, 3, (4, 2, 1, 4, 5))
    expected = run(net, x)["output"]
    assert expected.shape == (4, 2, 3) and expected.any()
    network = zoo.from_nir(net, shape=shape)
    assert network.input_shape == (1, 4, 5)
    assert np.array_equal(network(torch.from_numpy(x).float()).detach(), expected)
    assert write_nir_onnx(net, tmp_path / "x.onnx", name="x").ok
    assert next(iter(check(net, "loihi2").network.layers)) == "n1"
    assert estimate(net, torch.from_numpy(x)).total("spikes") == run(net, x)["n1"].sum()


def test_an_axis_of_more_than_one_is_left_out_where_the_shape_says_so() -> None:
    net = classifier(16)
    assert zoo.from_nir(net, shape=(1, 4, 5)).input_shape == (1, 4, 5)
    with pytest.raises(
        ExportError,
        match=r"declares \[16, 1, 4, 5\]: if the first axis is of batch or time, "
        r"give shape=\(1, 4, 5\)$",
    ):
        zoo.from_nir(net)
    timed = declaring([20, 1, 2], nir.Linear(np.ones((3, 2))))
    assert zoo.from_nir(timed, shape=(2,)).input_shape == (2,)
    with pytest.raises(
        ExportError, match=r"if the first 2 axes are of batch or time, give shape=\(2,\)$"
    ):
        zoo.from_nir(timed)


@pytest.mark.parametrize("shape", [(3,), (16, 1, 4), (1, 16, 1, 4, 5), ()])
def test_a_shape_that_is_not_the_end_of_the_declared_one_is_refused(shape: Any) -> None:
    with pytest.raises((InputError, ExportError)) as raised:
        zoo.from_nir(classifier(16), shape=shape)
    assert "\n" not in str(raised.value)


def test_a_declared_axis_of_one_that_the_graph_reads_stays() -> None:
    assert check_graph(declaring([1, 4], nir.Scale(np.ones((1, 4))))).shapes["output"] == (1, 4)
    assert check_graph(declaring([1, 4], nir.Scale(np.array(2.0)))).shapes["output"] == (1, 4)
    assert check_graph(declaring([1], nir.Scale(a(2)))).shapes["output"] == (1,)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1)])
def test_an_axis_of_the_batch_is_not_flattened(start: int, end: int) -> None:
    net = classifier(16)
    net.nodes["n2"].start_dim, net.nodes["n2"].end_dim = start, end
    with pytest.raises(ExportError, match="'n2' flattens dimensions"):
        check_graph(net, shape=(1, 4, 5))


def test_several_inputs_are_named() -> None:
    net = chain(nir.Scale(a(1, 1)))
    net.nodes["second"] = nir.Input(np.array([2]))
    net.edges.append(("second", "n0"))
    with pytest.raises(
        ExportError,
        match=r"has 2 Input nodes \('input', 'second'\): exactly one can be used; let one",
    ):
        check_graph(net)


def weights() -> list[tuple[str, Callable[[], Any]]]:
    return [
        ("masked", lambda: np.array([[True, False], [True, True]])),
        ("half", lambda: np.ones((2, 2), np.float16)),
    ]


@pytest.mark.parametrize(("name", "make"), weights(), ids=[name for name, _ in weights()])
def test_weights_of_other_types(name: str, make: Callable[[], Any], tmp_path: Path) -> None:
    net, x = (
        chain(nir.Linear(make())),
        np.random.default_rng(0).normal(size=(2, 1, 2)).astype(np.float32),
    )
    expected = x @ make().astype(np.float32).T
    np.testing.assert_allclose(run(net, x)["output"], expected, rtol=1e-6)
    np.testing.assert_allclose(zoo.from_nir(net)(torch.from_numpy(x)).detach(), expected, rtol=1e-6)
    assert write_nir_onnx(net, tmp_path / f"{name}.onnx", name=name).ok
