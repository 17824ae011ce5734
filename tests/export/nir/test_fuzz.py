"""Files and graphs that are wrong in ways nobody thought of: they work, or a `ZooError` of one line
says why not; nothing else.

Examples are derived from fixed seeds, so that every run sees the same ones.
"""

import os
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import count, pairwise
from math import ceil
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export.nir import hdf5_process as hdf5
from export.nir import interpreter as interpret
from export.nir import reader as read
from export.nir.graph import check_graph, find_subtractive_resets
from export.nir.interpreter import run
from export.nir.reader import read_nir
from zoo import sandbox
from zoo.errors import InputError, ZooError

DT = 0.25
CALLS = 1_000_000  # of functions, for one case
MEGABYTES = 1500  # by which all cases of a test may raise the most memory ever used


def fuzzed(examples: int) -> Any:
    checks = [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ]
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=checks,
    )


def full(*shape: int, value: float = 0.5) -> Any:
    return np.full(shape, value, np.float32)


def wired(*nodes: Any, shape: Any, out: Any) -> Any:
    named = {
        "input": nir.Input(np.array(shape)),
        **{f"n{i}": n for i, n in enumerate(nodes)},
        "output": nir.Output(np.array(out)),
    }
    return nir.NIRGraph(named, list(pairwise(named)), {"dt": DT, "note": "x"}, type_check=False)


def convolving() -> Any:
    conv = nir.Conv2d((4, 4), full(2, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1, full(2))
    pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    flat = nir.Flatten({"input": np.array([2, 2, 2])}, -3, -1)
    graph = wired(
        conv,
        nir.LIF(*[full(2, 4, 4)] * 5),
        pool,
        flat,
        nir.Affine(full(3, 8), full(3)),
        shape=(1, 4, 4),
        out=[3],
    )
    graph.nodes |= {"skip": nir.Conv2d((4, 4), full(2, 1, 1, 1), 1, 0, 1, 1, full(2))}
    graph.edges += [("input", "skip"), ("skip", "n1")]
    return graph


def subtracts() -> Any:
    graph = wired(
        nir.LI(*[full(2)] * 3),
        nir.Threshold(full(2)),
        nir.CubaLIF(*[full(2)] * 6),
        shape=(2,),
        out=[2],
    )
    graph.nodes |= {"minus": nir.Scale(full(2, value=-0.5)), "late": nir.Delay(full(2, value=DT))}
    graph.edges += [("n1", "minus"), ("minus", "late"), ("late", "n0")]
    return graph


def nested() -> Any:
    inner = wired(
        nir.Conv1d(5, full(2, 2, 3), 1, "same", 1, 1, full(2)),
        nir.IF(*[full(2, 5)] * 3),
        shape=(2, 5),
        out=[2, 5],
    )
    return wired(
        nir.Scale(np.float32(2)),
        inner,
        nir.Linear(full(2, 3, 5)),
        nir.I(full(2, 3)),
        shape=(2, 5),
        out=[2, 3],
    )


GRAPHS = [convolving, subtracts, nested]


@cache
def good_files() -> list[bytes]:
    files = []
    for make, compression in ((convolving, "gzip"), (subtracts, None), (nested, "gzip")):
        out = BytesIO()
        nir.write(out, make(), compression)
        files.append(out.getvalue())
        latest = BytesIO()
        with h5py.File(BytesIO(files[-1])) as old, h5py.File(latest, "w", libver="latest") as new:
            old.copy("node", new)
        files.append(latest.getvalue())
    return files


# Bytes

NUMBERS = [
    0,
    1,
    2,
    8,
    127,
    255,
    0xFFFF,
    1 << 31,
    (1 << 32) - 1,
    10**12,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
]
SIGNS = [
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"OHDR",
    b"FRHP",
    b"FHDB",
    b"BTHD",
    b"BTLF",
    b"GCOL",
    b"\x89HDF",
    b"OCHK",
]


def mutated(seed: int) -> bytes:
    """A good file with a few bytes changed, cut, moved or copied, half of them where HDF5 keeps its
    own structures.
    """
    rng = random.Random(seed)
    files = good_files()
    data, other = bytearray(rng.choice(files)), rng.choice(files)
    signs = (
        [at for sign in SIGNS for at in range(len(data)) if data.startswith(sign, at)]
        if rng.random() < 0.5
        else []
    )
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.choice(signs) + rng.randrange(64) if signs else rng.randrange(len(data))
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1 | 2:
                size = rng.choice([1, 2, 4, 8])
                data[at : at + size] = (
                    rng.choice([*NUMBERS, rng.randrange(len(data))]) % 256**size
                ).to_bytes(size, "little")
            case 3 | 4:
                size, source = rng.choice([8, 16, 64, 256, 1024]), rng.choice([bytes(data), other])
                start = rng.randrange(len(source))
                data[at : at + size] = source[start : start + size]
            case _ if rng.random() < 0.2:
                del data[at:]
        if len(data) < 64:
            break
    return bytes(data)


def read_here(path: Path) -> Any:
    """`read_nir`, but in this process."""
    out = BytesIO()
    sandbox.send(hdf5.send_graph, path, out)
    out.seek(0)
    try:
        tree = sandbox.receive(out, hdf5.allowed_bytes(path.stat().st_size))
    except sandbox.Refused as error:
        raise InputError(f"{path} {error}") from None
    assert tree is not None
    return read._node(path, "", tree["node"])


def work(last: int, path: Path) -> None:
    """What the process of `test_damaged_bytes` does: read every file in a child, and say its seed
    and how the child ended.
    """
    began = time.process_time()
    for good in good_files():
        path.write_bytes(good)
        check_graph(read_here(path))
    patience = ceil(50 * (time.process_time() - began) / len(good_files()))
    for seed in range(last):
        path.write_bytes(mutated(seed))
        child = os.fork()
        if child == 0:
            os._exit(attempt(path, patience))
        print(seed, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def attempt(path: Path, seconds: int) -> int:
    """1 if reading fails in another way than it may. A signal ends it after so many seconds of a
    processor, wherever it is.
    """
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (2 << 30), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        check_graph(read_here(path))
    except ZooError as error:
        return int("\n" in str(error))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


@pytest.mark.slow
def test_damaged_bytes(tmp_path: Path) -> None:
    """HDF5 may crash or run for ever over a few, which is why it has a process of its own; all else
    is an error in a line.

    Nearly all are done in the time of a good file, the others never: fifty times that time, as this
    processor takes it, tells them apart on any.
    """
    files = 300
    program = f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; "
    program += "from test_fuzz import work; "
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"{program}work({files}, Path({str(tmp_path / 'x')!r}))",
    ]
    # for a process that forks
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    worker = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
        env=one_thread,
    )
    assert worker.returncode == 0, worker.stderr
    ends = dict(tuple(map(int, line.split())) for line in worker.stdout.splitlines())
    assert len(ends) == files
    assert not [seed for seed, code in ends.items() if code > 0], worker.stderr
    # what is known of the others is only that they end
    assert sum(code == 0 for code in ends.values()) > files / 2


@pytest.mark.slow
@fuzzed(20)
@given(seed=st.integers(0, 10**9))
def test_damaged_bytes_through_the_reader(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(mutated(seed))
    checked(lambda: check_graph(read_nir(path)))


# Structure

SCALARS = [0, 1, -1, 2**31, -(2**63), 2**64 - 1, 0.5, -0.5, 1e-300, 1e300, np.nan, np.inf, True, 1j]
SCALARS += [b"\xff", "", "same", "x" * 70000]
DTYPES = [
    "f2",
    ">f4",
    "f8",
    "i1",
    ">i8",
    "u8",
    "?",
    "c8",
    "S3",
    "g",
    "i4,f4",
    "(2,)f4",
    h5py.string_dtype(),
    h5py.ref_dtype,
]
SIZES = [0, 1, 2, 3, 5, 16, 10**3, 10**6, 10**12, 2**31, 2**62]
NAMES = "type nodes edges n0 n1 tau weight bias metadata shape input_type dt input".split()
NAMES += ["\x07", "\u00e9.x", "type_check"]
CHANGES = "drop move number retype reshape declare random group link attribute copy".split()


def paths_of(file: Any) -> list[str]:
    found: list[str] = []
    file["node"].visit(found.append)
    return [f"node/{name}" for name in found] or ["node"]


def edit_file(file: Any, draw: Callable[[Any], Any]) -> None:
    """One change to a file of HDF5 that leaves it a file of HDF5."""
    paths = paths_of(file)
    path = draw(st.sampled_from(paths))
    old = file[path]
    kind = draw(st.sampled_from(CHANGES))
    if kind == "move":
        name = path.rpartition("/")[0] + "/" + draw(st.sampled_from(NAMES))
        if name not in file:
            file.move(path, name)
        return
    if kind == "attribute":
        old.attrs[draw(st.sampled_from(NAMES))] = 1
        return
    if kind == "copy":
        target = draw(st.sampled_from(paths))
        if isinstance(file[target], h5py.Group):
            file.copy(old, file[target], draw(st.sampled_from(NAMES)) + "_")
        return
    values = (
        old[()]
        if isinstance(old, h5py.Dataset) and old.shape is not None and old.size < 10**4
        else np.ones(2)
    )
    shape = tuple(draw(st.lists(st.sampled_from(SIZES[:6]), max_size=4)))
    del file[path]
    if kind == "number":
        file[path] = draw(st.sampled_from(SCALARS))
    elif kind == "retype":
        file.create_dataset(path, shape, draw(st.sampled_from(DTYPES)))
    elif kind == "reshape":
        file[path] = np.resize(values, shape)
    elif kind == "declare":
        sizes = tuple(draw(st.lists(st.sampled_from(SIZES[1:]), min_size=1, max_size=3)))
        file.create_dataset(
            path,
            sizes,
            draw(st.sampled_from(DTYPES[:7])),
            chunks=(1,) * len(sizes),
            maxshape=(None,) * len(sizes),
        )
    elif kind == "random":
        numbers = draw(st.lists(st.floats(width=32), min_size=1, max_size=8))
        file[path] = np.resize(
            np.array(numbers, "f4"), np.shape(values) if np.size(values) else (2,)
        )
    elif kind == "group":
        file.create_group(path + "/" + draw(st.sampled_from(NAMES)))
    elif kind == "link":
        there = draw(st.sampled_from(["/node", "/" + path, "/nowhere", "/version"]))
        links = [
            h5py.SoftLink(there),
            h5py.ExternalLink("x.h5", there),
            file.get(there, h5py.Empty("f4")),
        ]
        file[path] = draw(st.sampled_from(links))


def checked(action: Callable[[], Any]) -> None:
    """It works, or it says why not in a line, and either with little work."""
    numbers = count()

    def call(*_: Any) -> None:
        assert next(numbers) < CALLS, "so much work for a small graph"

    sys.setprofile(call)
    try:
        action()
    except ZooError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2500, error
    finally:
        sys.setprofile(None)


def peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture(autouse=True)
def bounded_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(interpret, "MAX_BYTES", 1 << 24)
    before = peak()
    yield
    assert peak() - before < MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
@fuzzed(250)
@given(data=st.data())
def test_damaged_structure(number: int, data: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(good_files()[2 * number])
    with h5py.File(path, "a") as file:
        for _ in range(data.draw(st.integers(1, 3))):
            try:
                edit_file(file, data.draw)
            except (ValueError, TypeError, OSError, KeyError, RuntimeError, OverflowError):
                break  # h5py cannot write such a thing
    checked(lambda: used(read_here(path)))


# Graphs

JUNK: list[Any] = [
    None,
    "x",
    b"x",
    "same",
    1,
    -1,
    0,
    2.5,
    True,
    10**400,
    np.nan,
    object(),
    {},
    [],
    [1],
    (1, 2),
    [[1], [1, 2]],
]
JUNK += [{"input": value} for value in (None, "x", 3, np.array([2]))]
JUNK += [
    np.array(value)
    for value in ([], 2, [1, 2], [[1, 2], [3, 4]], [None, "x"], ["same"], [1j], [True])
]
JUNK += [
    np.array(value)
    for value in (
        [2**62, 2],
        [1 << 20, 1 << 20],
        [1 << 10, 1 << 10],
        2**64 - 1,
        [1e300, 1],
        [1e-300, 1],
    )
]
JUNK += [full(2, value=value) for value in (0.5, -1, 3e38, np.nan, np.inf)]
JUNK += [
    full(1),
    full(2, 4, 4),
    full(2, 1, 3, 3),
    np.longdouble(1),
    np.array([1, 2], np.float16),
    np.datetime64("2020"),
]
JUNK += [np.broadcast_to(np.float32(1), (10**6, 10**6)), np.broadcast_to(1, (2, 10**5))]
EDGE_JUNK = [
    None,
    "ab",
    ("n0",),
    ("n0", "n1", "n2"),
    ("n0", 1),
    (None, "n0"),
    (["n0"], "n1"),
    5,
    ("n0", "lost"),
    ["input", "n1"],
]


def edit_graph(graph: Any, draw: Callable[[Any], Any]) -> Any:
    """One change to a graph in memory."""
    nodes, edges = (getattr(graph, part, None) for part in ("nodes", "edges"))  # may be edited away
    names = (
        [name for name in nodes or () if isinstance(name, str)] if isinstance(nodes, dict) else []
    )
    names = names or ["input"]
    kinds = [
        "add",
        "add",
        "drop",
        "turn",
        "edge",
        "field",
        "field",
        "field",
        "field",
        "node",
        "wrap",
        "itself",
        "meta",
        "part",
    ]
    kind = draw(st.sampled_from(kinds))
    name, junk = draw(st.sampled_from(names)), st.sampled_from(JUNK)
    if not isinstance(nodes, dict) or not isinstance(edges, list):
        return graph
    index = draw(st.integers(0, max(0, len(graph.edges) - 1)))
    if kind == "add":
        graph.edges.insert(index, (name, draw(st.sampled_from(names))))
    elif kind == "drop":
        del graph.edges[index : index + 1]
    elif kind == "turn" and index < len(graph.edges) and isinstance(graph.edges[index], tuple):
        graph.edges[index] = draw(
            st.sampled_from([graph.edges[index][::-1], (name, draw(st.sampled_from(names)))])
        )
    elif kind == "edge":
        graph.edges.insert(index, draw(st.sampled_from(EDGE_JUNK)))
    elif kind == "field" and hasattr(graph.nodes.get(name), "__dict__"):
        fields = vars(graph.nodes[name])
        if fields:
            field = draw(st.sampled_from(sorted(fields)))
            fields[field] = draw(junk)
            if draw(st.integers(0, 9)) == 0:
                del fields[field]
    elif kind == "node":
        graph.nodes[draw(st.sampled_from([name, "new", "n1.input", 7]))] = draw(
            st.sampled_from(
                [*graph.nodes.values(), None, "x", nested(), nir.Input(None), nir.Delay(full(1))]
            )
        )
    elif kind == "wrap":
        return wired(graph, shape=(2,), out=[2])
    elif kind == "itself":
        graph.nodes[name] = graph
    elif kind == "meta":
        graph.metadata = draw(
            st.sampled_from(
                [{}, None, {"dt": draw(junk)}, {"dt": 1e-300}, {"dt": 1e300}, {"dt": 10**400}]
            )
        )
    elif kind == "part":
        setattr(graph, draw(st.sampled_from(["nodes", "edges", "metadata"])), draw(junk))
    return graph


def used(graph: Any) -> None:
    """Everything that is done with a graph."""
    checked = check_graph(graph, shape=None)
    find_subtractive_resets(checked)
    for name, read_ in checked.sources.items():
        assert all(checked.shapes[source] == checked.inputs(name) for source in read_)
    shape = checked.shapes[checked.entry]
    if np.prod(shape, dtype=float) < 1e5:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same'")
            values = run(graph, np.random.default_rng(0).normal(size=(3, 2, *shape)))
        assert {name: value.shape[2:] for name, value in values.items()} == checked.shapes


@pytest.mark.parametrize("make", GRAPHS)
@fuzzed(200)
@given(data=st.data())
def test_spoilt_graphs(make: Callable[[], Any], data: Any) -> None:
    check_spoilt(make(), data)


@pytest.mark.slow
@pytest.mark.parametrize("make", GRAPHS)
@fuzzed(750)
@given(data=st.data())
def test_many_spoilt_graphs(make: Callable[[], Any], data: Any) -> None:
    check_spoilt(make(), data)


def check_spoilt(graph: Any, data: Any) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        graph = edit_graph(graph, data.draw)
    checked(lambda: used(graph))
