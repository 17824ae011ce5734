"""Graphs and files of anyone: what is made of the sound ones, and what is said of the others."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from export.nir import graph as graph_module
from export.nir import hdf5_process as hdf5
from export.nir.graph import ResetBySubtraction, check_graph, find_subtractive_resets
from export.nir.interpreter import run
from export.nir.reader import read_nir
from zoo import sandbox
from zoo.arrays import Array
from zoo.errors import ExportError, InputError

DT = 0.25


def a(*values: Any) -> Array:
    return np.array(values, np.float32)


def chain(*nodes: Any, shape: Any = (2,), out: Any = None, **metadata: Any) -> Any:
    """input -> n0 -> n1 ... -> output."""
    shape = None if shape is None else np.array(shape)
    named = {
        "input": nir.Input(shape),
        **{f"n{i}": n for i, n in enumerate(nodes)},
        "output": nir.Output(out),
    }
    return nir.NIRGraph(named, list(pairwise(named)), {"dt": DT} | metadata, type_check=False)


def changed(node: Any, **fields: Any) -> Any:
    """A node with attributes that its constructor would not take."""
    vars(node).update(fields)
    return node


def convolving() -> Any:
    conv = nir.Conv2d((4, 4), np.ones((2, 1, 3, 3), np.float32), 1, 1, 1, 1, a(0, 1))
    lif = nir.LIF(*(np.full((2, 4, 4), value, np.float32) for value in (1, 1, 0, 0.5)))
    pool = nir.SumPool2d(np.array([4, 4]), np.array([4, 4]), np.array([0, 0]))
    flat = nir.Flatten({"input": np.array([2, 1, 1])}, -3, -1)
    return chain(
        conv,
        lif,
        pool,
        flat,
        nir.Affine(a([1, 2]), a(3)),
        shape=(1, 4, 4),
        out=[1],
        steps=4,
        note="x",
    )


# Sound graphs


def test_a_checked_graph_is_flat_and_in_order() -> None:
    inner = nir.NIRGraph.from_list(nir.Threshold(a(1, 1)))
    graph = chain(nir.Scale(a(2, 2)), inner, nir.Linear(a([1, 1])))
    graph.nodes = dict(reversed(graph.nodes.items()))
    graph.edges.append(("n0", "n2"))
    checked = check_graph(graph)
    assert [*checked.nodes] == [
        "input",
        "n0",
        "n1.input",
        "n1.threshold",
        "n1.output",
        "n2",
        "output",
    ]
    assert checked.sources["n2"] == ("n1.output", "n0") and checked.sources["input"] == ()
    assert checked.readers["n0"] == ("n1.input", "n2") and checked.readers["output"] == ()
    assert checked.shapes["n1.threshold"] == checked.inputs("n2") == checked.inputs("input") == (2,)
    assert checked.shapes["output"] == (1,) and checked.dt == DT and checked.entry == "input"


def test_windows_are_tuples_and_the_graph_is_left_alone() -> None:
    graph = convolving()
    conv, pool = check_graph(graph).nodes["n0"], check_graph(graph).nodes["n2"]
    assert (conv.stride, conv.padding, conv.dilation, conv.groups) == ((1, 1), (1, 1), (1, 1), 1)
    assert pool.kernel_size == (4, 4) and isinstance(graph.nodes["n2"].kernel_size, np.ndarray)
    valid = nir.Conv1d(None, a([[1, 1]]), np.int64(2), "valid", 1, 1, a(0))
    assert check_graph(chain(valid, shape=(1, 5))).nodes["n0"].padding == (0,)
    assert check_graph(chain(valid, shape=(1, 5))).shapes["n0"] == (1, 2)


@pytest.mark.parametrize("scalar", [np.float32(0.5), np.array(0.5), a(0.5), 0.5])
def test_scalars_hold_for_every_element(scalar: Any) -> None:
    shapes = {(): 0.5, (1,): a(0.5), (2, 3): np.full((2, 3), 0.5)}
    lif = changed(nir.LIF(*[a(0.5)] * 4), tau=scalar, v_threshold=shapes[(2, 3)])
    graph = chain(
        changed(nir.Scale(a(1)), scale=scalar),
        lif,
        changed(nir.Threshold(a(1)), threshold=scalar),
        shape=(2, 3),
    )
    checked = check_graph(graph)
    assert (
        checked.nodes["n0"].scale.shape
        == checked.nodes["n1"].tau.shape
        == checked.nodes["n2"].threshold.shape
        == (2, 3)
    )
    full = {
        name: np.full((2, 3), 0.5, np.float32)
        for name in ("tau", "r", "v_leak", "v_threshold", "v_reset")
    }
    full["v_reset"] = np.zeros((2, 3), np.float32)
    same = chain(nir.Scale(full["tau"]), nir.LIF(**full), nir.Threshold(full["tau"]), shape=(2, 3))
    x = np.arange(24.0).reshape(4, 1, 2, 3)
    assert np.array_equal(run(graph, x)["output"], run(same, x)["output"])


def test_a_scalar_delay_in_a_loop_takes_the_shape_of_the_loop() -> None:
    graph = chain(nir.Scale(a(1, 1)), nir.Delay(a(DT)))
    graph.edges.append(("n1", "n0"))
    assert run(graph, np.ones((3, 1, 2)))["n0"][:, 0].tolist() == [[1, 1], [2, 2], [3, 3]]


def test_an_input_without_a_shape_takes_that_of_the_inputs() -> None:
    graph = chain(nir.Scale(np.array(2.0)), shape=None)
    assert check_graph(graph, shape=(3, 2)).shapes["output"] == (3, 2)
    assert run(graph, np.ones((1, 1, 3)))["output"].tolist() == [[[2, 2, 2]]]
    with pytest.raises(ExportError, match="'input' declares no shape"):
        check_graph(graph)


def test_a_loop_that_the_input_does_not_reach_needs_a_shape() -> None:
    def ring(delay: Array) -> Any:
        graph = chain(nir.Scale(a(1, 1)))
        graph.nodes |= {"late": nir.Delay(delay), "scale": nir.Scale(a(1, 1))}
        graph.edges += [("late", "scale"), ("scale", "late"), ("scale", "n0")]
        return graph

    assert check_graph(ring(a(DT, DT))).shapes["scale"] == (2,)
    with pytest.raises(ExportError, match=r"'late' is not reached|'scale' is not reached"):
        looped = ring(a(DT))
        looped.edges.pop()
        check_graph(looped)


# Reset by subtraction


def subtracts(
    *,
    membrane: Any = None,
    theta: Any = (1.0, 1.5),
    scale: Any = (-1.0, -1.5),
    delay: Any = (DT, DT),
    **more: Any,
) -> Any:
    graph = chain(membrane or nir.LI(a(0.5, 0.5), a(2, 2), a(0, 0)), nir.Threshold(a(*theta)))
    graph.nodes |= {"minus": nir.Scale(a(*scale)), "late": nir.Delay(a(*delay)), **more}
    graph.edges += [("n1", "minus"), ("minus", "late"), ("late", "n0")]
    return graph


def test_a_reset_by_subtraction_is_recognised() -> None:
    loop = ResetBySubtraction("n0", "n1", "minus", "late", inputs=("input",), readers=("output",))
    assert find_subtractive_resets(check_graph(subtracts())) == {"n0": loop}
    assert check_graph(subtracts()).subtractive_resets == {"n0": loop}
    assert find_subtractive_resets(check_graph(subtracts(membrane=nir.I(a(4, 4))))) == {"n0": loop}
    assert find_subtractive_resets(
        check_graph(subtracts(theta=(1,), scale=(-1, -1), delay=(DT,)))
    ) == {"n0": loop}
    x = np.full((6, 1, 2), 0.75)
    v, spikes = np.zeros(2), []
    for _ in x:
        v = 0.5 * v + 0.75 - (np.array([1, 1.5]) * spikes[-1] if spikes else 0)
        spikes.append(v > [1, 1.5])
    assert np.array_equal(run(subtracts(), x)["n1"][:, 0], spikes) and 0 < np.mean(spikes) < 1


def spoilt(*edges: tuple[str, str], without: Any = None, **more: Any) -> Any:
    graph = subtracts(**more)
    graph.edges = [edge for edge in graph.edges if edge != without] + list(edges)
    return graph


@pytest.mark.parametrize(
    "graph",
    [
        subtracts(scale=(-1, -1)),
        subtracts(scale=(1, 1.5)),
        subtracts(delay=(DT, 2 * DT)),
        subtracts(delay=(2 * DT, 2 * DT)),
        subtracts(membrane=nir.LIF(*[a(1, 1)] * 4)),
        spoilt(("input", "n1")),
        spoilt(("n0", "minus")),
        spoilt(("n1", "late")),
        spoilt(without=("input", "n0")),
        spoilt(
            ("n1", "minus2"),
            ("minus2", "late2"),
            ("late2", "n0"),
            minus2=nir.Scale(a(-1, -1.5)),
            late2=nir.Delay(a(DT, DT)),
        ),
    ],
    ids=[
        "scale",
        "sign",
        "delays",
        "two steps",
        "kind",
        "threshold reads more",
        "scale",
        "delay",
        "loop alone",
        "two loops",
    ],
)
def test_what_is_no_reset_by_subtraction(graph: Any) -> None:
    if ("input", "n0") not in graph.edges:
        graph.edges += [("input", "output")]
    assert find_subtractive_resets(check_graph(graph)) == {}


# Unsound graphs


def edges(*pairs: Any) -> Any:
    graph = chain(nir.Scale(a(1, 1)))
    graph.edges += pairs
    return graph


def within(depth: int) -> Any:
    graph = chain(nir.Scale(a(1, 1)))
    for _ in range(depth):
        graph = chain(graph)
    return graph


def itself() -> Any:
    graph = chain(nir.Scale(a(1, 1)))
    graph.nodes["n0"] = graph
    return graph


def doubling() -> Any:
    graph = chain(nir.Scale(a(1, 1)))
    for _ in range(30):
        graph = chain(graph, graph)
    return graph


def pooled(**fields: Any) -> Any:
    return chain(changed(nir.SumPool2d(*[np.array([1, 1])] * 3), **fields), shape=(1, 4, 4))


UNSOUND: list[tuple[Callable[[], Any], str]] = [
    (lambda: nir.Scale(a(1)), "a nir.NIRGraph is needed"),
    (lambda: changed(chain(), edges=7), "edges of graph '' are 7"),
    (lambda: changed(chain(), nodes=[1]), "nodes of graph '' must be a dict"),
    (lambda: changed(chain(), nodes={1: nir.Input([2])}), "nodes of graph '' must be a dict"),
    (lambda: changed(chain(), metadata=[1]), "metadata of graph '' are"),
    (lambda: changed(chain(), metadata={"dt": a(1, 2)}), "is no time step"),
    (lambda: changed(chain(), metadata={"dt": 10**400}), "is no time step"),
    (lambda: edges(("n0",)), r"edge \['n0'\] is no pair"),
    (lambda: edges("n0"), "edge 'n0' is no pair"),
    (lambda: edges(("n0", "n1", "n2")), "is no pair"),
    (lambda: edges((["n0"], "n1")), "is no pair"),
    (lambda: edges(None), "edge None is no pair"),
    (lambda: edges(("n0", "x" * 10**6)), "has an end that is no node"),
    (lambda: chain(None), "'n0' is of the unknown type NoneType"),
    (lambda: chain(changed(nir.Scale(a(1, 1)), scale="2")), "'n0' has '2' as its scale"),
    (lambda: chain(changed(nir.Scale(a(1, 1)), scale=None)), "'n0' has None as its scale"),
    (lambda: chain(nir.Scale(np.array([1j, 1]))), "where an array of numbers is expected"),
    (lambda: chain(nir.Scale(np.array([None, "\n"]))), "where an array of numbers is expected"),
    (lambda: chain(nir.Scale(np.zeros(0))), "that are not finite numbers, or none"),
    (lambda: chain(nir.Scale(np.broadcast_to(1.0, (10**6, 10**6)))), "or more than"),
    (lambda: chain(nir.Scale(a(1, np.inf))), "that are not finite numbers"),
    (
        lambda: chain(
            nir.Delay(
                np.array([1e308, 1]),
            ),
            dt=1e-300,
        ),
        "delays by other than whole steps",
    ),
    (lambda: chain(changed(nir.Flatten(None), start_dim=0.5)), "'n0' has 0.5 as its start_dim"),
    (lambda: chain(changed(nir.Flatten(None), end_dim=None)), "'n0' has None as its end_dim"),
    (lambda: chain(changed(nir.Flatten(None), end_dim=a(1, 2))), "as its end_dim"),
    (lambda: chain(shape=(2, -1)), "declared shape"),
    (lambda: chain(shape=(2.5,)), "declared shape"),
    (lambda: chain(shape=[1] * 33), "declares 33 axes"),
    (lambda: chain(shape=(10**6, 10**6)), "'input' would take"),
    (lambda: chain(changed(nir.Output(None), input_type={"input": "big"})), "declared shape"),
    (lambda: chain(changed(nir.Linear(a([1, 1])), weight=a(1, 1))), r"has weights \[2\]"),
    (lambda: pooled(stride=None), "'n0' has None as its stride"),
    (lambda: pooled(kernel_size=True), "has true as its kernel_size"),
    (lambda: pooled(padding="same"), "has 'same' as its padding"),
    (lambda: chain(chain(shape=[2]), chain(None)), "'n1.n0' is of the unknown type"),
    (lambda: within(40), "deeper than 32 graphs"),
    (itself, "deeper than 32 graphs"),
    (doubling, "more than 100000 nodes"),
    (lambda: chain(*[nir.Scale(a(1, 1))] * 100_001), "more than 100000 nodes"),
    (
        lambda: chain(nir.Threshold(a(1, 1)), changed(chain(), nodes=None)),
        "other than one Input and one Output",
    ),
]


@pytest.mark.parametrize(("make", "message"), UNSOUND, ids=[message for _, message in UNSOUND])
def test_an_unsound_graph_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ExportError, match=message) as raised:
        check_graph(make())
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


# Files


def edited(path: Path, edit: Callable[[Any], Any] = lambda file: None) -> Path:
    nir.write(path, convolving())
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def test_a_good_file_is_what_nir_reads(tmp_path: Path) -> None:
    graph, known = (
        read_nir(edited(tmp_path / "x.nir")),
        nir.read(tmp_path / "x.nir", type_check=False),
    )
    assert graph.metadata == known.metadata == {"dt": DT, "steps": 4, "note": "x"}
    assert set(graph.edges) == set(known.edges) and [*graph.nodes] == [*known.nodes]
    for name, node in known.nodes.items():
        assert type(graph.nodes[name]) is type(node)
        for field, value in node.to_dict().items():
            mine = graph.nodes[name].to_dict()[field]
            assert type(mine) is type(value) and np.array_equal(mine, value), (name, field)
    x = np.random.default_rng(0).normal(size=(3, 2, 1, 4, 4))
    assert all(np.array_equal(v, run(convolving(), x)[k]) for k, v in run(graph, x).items())


def test_nested_graphs_types_and_byte_orders_survive_the_file(tmp_path: Path) -> None:
    inner = chain(nir.CubaLI(*[a(1, 1)] * 4), nir.Delay(a(DT, DT)), out=[2])
    scale, integrator = nir.Scale(np.array([1, 2], ">f8")), nir.I(np.array([1, 2], np.int8))
    nir.write(tmp_path / "x.nir", chain(scale, inner, integrator, out=[2], ok=True))
    graph = read_nir(tmp_path / "x.nir")
    assert (
        graph.nodes["n0"].scale.tolist() == [1, 2]
        and graph.nodes["n2"].r.dtype == np.int8
        and graph.metadata["ok"]
    )
    assert check_graph(graph).shapes["n1.n0"] == (2,)


def test_scalars_beside_arrays_survive_the_file(tmp_path: Path) -> None:
    def scalar(file: Any) -> None:
        del file["node/nodes/n1/tau"], file["node/nodes/n1/v_reset"]
        file["node/nodes/n1/tau"] = 1.0

    graph = read_nir(edited(tmp_path / "x.nir", scalar))
    assert graph.nodes["n1"].tau.shape == (2, 4, 4) and not graph.nodes["n1"].v_reset.any()


def put(name: str, *args: Any, **options: Any) -> Callable[[Any], Any]:
    """Replace a data set of the file."""

    def edit(file: Any) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, *args, **options)

    return edit


def drop(name: str) -> Callable[[Any], Any]:
    return lambda file: file.__delitem__(name)


def link(name: str, target: Any) -> Callable[[Any], Any]:
    def edit(file: Any) -> None:
        if name in file:
            del file[name]
        file[name] = target(file) if callable(target) else target

    return edit


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2,))
    del file["node/nodes/n0/bias"]
    file.create_virtual_dataset("node/nodes/n0/bias", layout)


def filtered(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2,))
    plist.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
    del file["node/nodes/n0/bias"]
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(file["node/nodes/n0"].id, b"bias", h5py.h5t.IEEE_F32LE, space, plist)


def deep(file: Any) -> None:
    file.create_group("node/metadata/" + "/".join("g" * 200))


WRONG_FILES: list[tuple[str, Callable[[Any], Any], str]] = [
    ("no graph", drop("node"), "without the group 'node'"),
    ("node is data", link("node", 1.0), "without the group 'node'"),
    (
        "node is elsewhere",
        link("node", h5py.ExternalLink("other.h5", "/node")),
        "without the group 'node'",
    ),
    ("node is a link", link("node", h5py.SoftLink("/version")), "without the group 'node'"),
    (
        "no type",
        drop("node/nodes/n1/type"),
        "'n1' has the type 'None'; valid are Affine, AvgPool2d",
    ),
    ("unknown type", put("node/nodes/n1/type", data="Dropout"), "'n1' has the type 'Dropout'"),
    ("type is a number", put("node/nodes/n1/type", data=3), "'n1' has the type '3'"),
    (
        "top is a node",
        lambda f: (f.move("node/nodes/n1", "n1"), drop("node")(f), f.move("n1", "node")),
        "single LIF, not a graph",
    ),
    (
        "missing parameter",
        drop("node/nodes/n1/tau"),
        r"'n1' \(LIF\) has no tau; valid are metadata, r, tau",
    ),
    (
        "unknown parameter",
        put("node/nodes/n1/colour", data=1),
        r"'n1' \(LIF\) has no place for colour",
    ),
    (
        "text parameter",
        put("node/nodes/n1/tau", data="slow"),
        "has a tau that is no array of numbers",
    ),
    (
        "padding",
        put("node/nodes/n0/padding", data="reflect"),
        "has a padding that is no array of numbers",
    ),
    (
        "group parameter",
        lambda f: (drop("node/nodes/n1/tau")(f), f.create_group("node/nodes/n1/tau")),
        "tau that is no array",
    ),
    (
        "shapes of a neuron",
        put("node/nodes/n1/tau", data=np.ones(3)),
        r"'n1' \(LIF\) does not fit together",
    ),
    ("metadata", put("node/metadata", data=1), "metadata that are no group"),
    ("no edges", drop("node/edges"), "the graph .NIRGraph. has no edges"),
    ("number edges", put("node/edges", data=np.ones((3, 2))), "edges that are no pairs of names"),
    ("triples", put("node/edges", data=[["a", "b", "c"]]), "edges that are no pairs of names"),
    ("names, not pairs", put("node/edges", data=["a", "b"]), "edges that are no pairs of names"),
    ("nodes are data", put("node/nodes", data=1), "nodes that are not groups"),
    ("a node is data", put("node/nodes/n1", data=1), "nodes that are not groups"),
    (
        "unwritten",
        put("node/nodes/n1/tau", (10**6, 10**6), "f4", chunks=(1000, 1000)),
        r"declares 1\.0e\+06 chunks at '/node/nodes/n1/tau'",
    ),
    (
        "compressed",
        put("node/nodes/n1/tau", (10**12,), "f4", chunks=(10**9,), compression="gzip"),
        r"declares 4\.0e\+12 bytes",
    ),
    (
        "strings",
        put("node/edges", (10**6, 10**6), h5py.string_dtype(), chunks=(10**4, 10**4)),
        "declares .* bytes",
    ),
    (
        "many strings",
        put("node/metadata/s", (3 * 10**6,), "S1", chunks=(1000,)),
        "more than 1048576 strings",
    ),
    ("long string", put("node/metadata/s", data="x" * 3_000_000), "string of 3000000 bytes"),
    ("no text", put("node/metadata/s", data=b"\xff\xfe"), "is damaged: 'utf-8' codec"),
    (
        "long name",
        lambda f: f.create_group("node/metadata/" + "x" * 2000),
        "name that is not printable text of at most 1000",
    ),
    ("line break", lambda f: f.create_group("node/nodes/a\nb"), "name that is not printable"),
    ("deep", deep, "groups more than 80 deep"),
    ("in itself", link("node/metadata/again", lambda f: f["node"]), "groups more than 80 deep"),
    (
        "soft link",
        link("node/nodes/n1/tau", h5py.SoftLink("/node/nodes/n1/r")),
        "has a SoftLink at '/node/nodes/n1/tau'",
    ),
    (
        "external link",
        link("node/nodes/n1", h5py.ExternalLink("/etc/passwd", "/")),
        "has a ExternalLink at '/node/nodes/n1'",
    ),
    ("virtual", virtual, "data of '/node/nodes/n0/bias' in another file"),
    (
        "external data",
        put("node/nodes/n0/bias", (2,), "f4", external=[("/etc/passwd", 0, 8)]),
        "in another file",
    ),
    (
        "reference",
        lambda f: put("node/nodes/n0/bias", data=f["node"].ref, dtype=h5py.ref_dtype)(f),
        "data of the type object",
    ),
    (
        "compound",
        put("node/nodes/n0/bias", data=np.zeros(2, "i4,f4")),
        "valid are numbers of at most 64 bits and strings",
    ),
    (
        "complex",
        put("node/nodes/n0/bias", data=np.zeros(2, complex)),
        "data of the type complex128",
    ),
    ("a type", link("node/nodes/n0/bias", np.dtype("f8")), "has a Datatype at"),
    ("empty", put("node/nodes/n0/bias", data=h5py.Empty("f4")), "has no data at"),
    ("filter", filtered, r"compresses '/node/nodes/n0/bias' by filter 305; valid are gzip"),
]


@pytest.mark.parametrize(
    ("edit", "message"), [row[1:] for row in WRONG_FILES], ids=[row[0] for row in WRONG_FILES]
)
def test_a_file_that_is_no_graph_is_refused_in_one_line(
    edit: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    path = edited(tmp_path / "x.nir", edit)
    with pytest.raises(InputError, match=message) as raised:
        read_nir(path)
    assert (
        "\n" not in str(raised.value)
        and str(raised.value).startswith(str(path))
        and len(str(raised.value)) < 1000
    )


WRONG_GRAPHS = [
    (
        "dangling edge",
        put("node/edges", data=[["input", "nowhere"]]),
        "'nowhere' has an end that is no node",
    ),
    (
        "cycle",
        put("node/edges", data=[["input", "n1"], ["n1", "n1"]]),
        "reads no other node|cycle without a Delay",
    ),
    (
        "shapes",
        put("node/nodes/input/shape", data=[2, 4, 4]),
        "weights, bias, groups or input_shape do not fit",
    ),
    ("nan", put("node/nodes/n0/bias", data=[0, np.nan]), "not finite"),
    ("dt", put("node/metadata/dt", data="slow"), "is no time step"),
]


@pytest.mark.parametrize(
    ("edit", "message"), [row[1:] for row in WRONG_GRAPHS], ids=[row[0] for row in WRONG_GRAPHS]
)
def test_a_file_with_an_unsound_graph_is_refused_when_it_is_used(
    edit: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    graph = read_nir(edited(tmp_path / "x.nir", edit))
    with pytest.raises(ExportError, match=message):
        check_graph(graph)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no HDF5 file"),
        (b"spikes\n", "is no HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "is damaged|no HDF5 file"),
        (None, "is damaged"),
    ],
)
def test_a_file_that_is_no_hdf5_is_refused(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = edited(tmp_path / "x.nir")
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(InputError, match=message):
        read_nir(path)
    for nothing in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="is no file"):
            read_nir(nothing)


def test_the_number_of_objects_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 20)
    out = BytesIO()
    sandbox.send(hdf5.send_graph, edited(tmp_path / "x.nir"), out)
    assert b'{"error": "has more than 20 objects"}' in out.getvalue()


@pytest.mark.parametrize(
    "program",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "while True: pass",
        'print(\'{"open": "node"}\')',
        "print('nonsense')",
        "print('{}')",
        "print('{\"close\": true}\\n' * 9)",
        'print(\'{"array": "x", "dtype": "<f4", "shape": [99999999999]}\')',
        'print(\'{"array": "x", "dtype": "<f4", "shape": [-1, -1]}\')',
        'print(\'{"array": "x", "dtype": "<f4", "shape": [9]}\')',
        'print(\'{"array": "x", "dtype": "O", "shape": []}\')',
        "print('{\"end\": true}')",
        "while True: print('x' * 1000, end='')",
    ],
)
def test_a_reader_that_dies_is_a_damaged_file(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "reader.py"
    script.write_text(program)
    monkeypatch.setattr(sandbox, "command", lambda *_: [sys.executable, str(script)])
    monkeypatch.setattr(hdf5, "allowed_seconds", lambda size: 0.05)
    with pytest.raises(
        InputError, match="is damaged: HDF5 crashed on it, or does not come to its end"
    ):
        read_nir(edited(tmp_path / "x.nir"))


def test_every_group_and_array_is_announced_before_it_is_read(tmp_path: Path) -> None:
    path, begun = edited(tmp_path / "x.nir"), list[int]()
    sandbox.send(hdf5.send_graph, path, BytesIO(), begun.append)
    expected = [0]
    with h5py.File(path) as file:
        file["node"].visititems(
            lambda _, thing: expected.append(thing.nbytes if isinstance(thing, h5py.Dataset) else 0)
        )
        kinds = {thing.dtype.kind for thing in map(file["node"].get, ("edges", "nodes/n0/weight"))}
    assert kinds == {"O", "f"} and not Counter(expected) - Counter(begun)


def test_a_reader_may_compute_as_long_as_the_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted anew for each group and array, in proportion to what the array takes, whatever it is
    packed to.
    """
    import resource

    limits: dict[int, int] = {}
    monkeypatch.setattr("resource.setrlimit", lambda kind, most: limits.update({kind: most[0]}))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.times", lambda: (1000.5, 0.5, 0.0, 0.0, 0.0))
    begin = sandbox.limit_this_process(hdf5.limits_for(1 << 30))
    assert limits[resource.RLIMIT_CPU] == 1001 + hdf5.STEP_CPU_SECONDS
    begin(1 << 32)
    assert limits[resource.RLIMIT_CPU] == 1001 + hdf5.STEP_CPU_SECONDS + 256
    monkeypatch.setattr("os.times", lambda: (1e6, 0.0, 0.0, 0.0, 0.0))
    begin(0)
    most = hdf5.allowed_seconds(1 << 30)
    assert limits[resource.RLIMIT_CPU] == most == hdf5.STEP_CPU_SECONDS + 256 + 1024
    # The memory is that of the arrays beside a filter's buffer, and a gigabyte for all the rest.
    assert limits[resource.RLIMIT_CORE] == 0
    assert limits[resource.RLIMIT_AS] - sandbox._mapped_bytes() < (1 << 30) + 2 * hdf5.MAX_BYTES


def test_public_names() -> None:
    assert set(graph_module.__all__) == {
        "CheckedGraph",
        "ResetBySubtraction",
        "check_graph",
        "find_recurrent_nodes",
        "find_subtractive_resets",
    }


def test_the_reading_process_loads_no_torch() -> None:
    program = "import sys, export.nir.hdf5_process; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
