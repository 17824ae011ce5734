"""Recurrent networks are counted as by brute force, and shown as such in every report."""

from io import StringIO
from typing import Any

import nir
import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from rich.console import Console

from export.energy import estimate, read_structure
from export.energy.output.json_csv import schema
from export.nir.interpreter import run
from zoo.errors import InputError

DT = 1e-4
T, B = 6, 3


def neurons(*shape: int, kind: type = nir.LIF) -> Any:
    """`v[t] = v[t-1] / 2 + x[t]`, and for a CubaLIF a synaptic current alike."""
    full = np.ones(shape, np.float32)
    tau = (
        {"tau": 2 * DT * full}
        if kind is nir.LIF
        else {"tau_syn": 2 * DT * full, "tau_mem": 2 * DT * full, "w_in": 2 * full}
    )
    return kind(**tau, r=2 * full, v_leak=0 * full, v_threshold=full, v_reset=0 * full)


def graph(
    shape: tuple[int, ...], out: tuple[int, ...], nodes: dict[str, Any], *edges: tuple[str, str]
) -> Any:
    ends = {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array(out))}
    return nir.NIRGraph(ends | nodes, list(edges), {"dt": DT}, type_check=False)


def sparse(*shape: int) -> Any:
    """Weights of which some are missing."""
    rng = np.random.default_rng(5)
    return (rng.integers(-2, 5, shape) / 4).astype(np.float32)


def dense_network(kind: type = nir.LIF) -> Any:
    """5 inputs, 4 recurrent neurons, 3 neurons behind them."""
    nodes = {
        "in": nir.Linear(sparse(4, 5)),
        "hidden": neurons(4, kind=kind),
        "loop": nir.Affine(sparse(4, 4), np.array([0, 0.5, 0, 0.25], np.float32)),
        "out": nir.Linear(sparse(3, 4)),
        "last": neurons(3, kind=kind),
    }
    edges = [
        ("input", "in"),
        ("in", "hidden"),
        ("hidden", "loop"),
        ("loop", "hidden"),
        ("hidden", "out"),
        ("out", "last"),
    ]
    return graph((5,), (3,), nodes, *edges, ("last", "output"))


def conv_network() -> Any:
    nodes = {
        "in": nir.Conv2d((6, 5), sparse(4, 2, 3, 3), 1, 1, 1, 1, np.zeros(4, np.float32)),
        "hidden": neurons(4, 6, 5),
        "loop": nir.Conv2d((6, 5), sparse(4, 2, 3, 3), 1, 1, 1, 2, np.zeros(4, np.float32)),
    }
    edges = [
        ("input", "in"),
        ("in", "hidden"),
        ("hidden", "loop"),
        ("loop", "hidden"),
        ("hidden", "output"),
    ]
    return graph((2, 6, 5), (4, 6, 5), nodes, *edges)


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 3, (T, B, *shape), generator=torch.Generator().manual_seed(3))


def connections(node: Any, events: np.ndarray[Any, Any]) -> int:
    """The weights that events `[T, B, ...]` meet, by a layer of ones where there is a weight."""
    x, present = (
        torch.from_numpy(events).double().flatten(0, 1),
        torch.from_numpy(node.weight != 0).double(),
    )
    if isinstance(node, nir.Conv2d):
        return int(torch.nn.functional.conv2d(x, present, padding=1, groups=node.groups).sum())
    return int((x @ present.T).sum())


@pytest.mark.parametrize(("make", "shape"), [(dense_network, (5,)), (conv_network, (2, 6, 5))])
def test_recurrent_synops_are_those_of_the_spikes_of_the_step_before(
    make: Any, shape: tuple[int, ...]
) -> None:
    net, x = make(), frames(*shape)
    values = run(net, x.numpy())
    late = np.concatenate([np.zeros_like(values["hidden"][:1]), values["hidden"][:-1]])
    assert late.any() and not np.array_equal(late.sum(), values["hidden"].sum())
    rows = {row.name: row for row in estimate(net, x).layers}
    assert rows["loop"].counts["acs"] == connections(net.nodes["loop"], late)
    assert rows["in"].counts["acs"] == connections(net.nodes["in"], x.numpy())
    assert {name for name, row in rows.items() if row.recurrent} == {"loop"}
    assert rows["hidden"].counts["updates"] == values["hidden"].size
    if "out" in rows:  # it reads the spikes of this step, the last included
        assert rows["out"].counts["acs"] == connections(net.nodes["out"], values["hidden"])
    active = (late.max(0) > 0)[None]
    assert rows["loop"].counts["active_acs"] == connections(net.nodes["loop"], active)


def test_updates_are_reached_by_recurrent_spikes_too() -> None:
    """By an event of the input, or by a recurrent spike through a weight that exists."""
    net, x = dense_network(), frames(5)
    net.nodes["loop"] = nir.Linear(net.nodes["loop"].weight)
    x[1:] = 0
    values = run(net, x.numpy())
    late = np.concatenate([np.zeros_like(values["hidden"][:1]), values["hidden"][:-1]])
    ways = [(x.numpy(), net.nodes["in"].weight), (late, net.nodes["loop"].weight)]
    reached = sum(events @ (weight != 0).T for events, weight in ways) > 0
    (row,) = (row for row in estimate(net, x).layers if row.name == "hidden")
    assert row.counts["updates_with_input"] == reached.sum() and 0 < reached.mean() < 1


def test_delays_of_several_steps_are_counted_element_by_element() -> None:
    net, x = dense_network(), frames(5)
    steps = np.array([1, 2, 3, 9])
    net.nodes["late"] = nir.Delay(steps * DT)
    net.edges = [edge for edge in net.edges if edge != ("hidden", "loop")] + [
        ("hidden", "late"),
        ("late", "loop"),
    ]
    late = run(net, x.numpy())["late"]
    (row,) = (row for row in estimate(net, x).layers if row.name == "loop")
    assert row.counts["acs"] == connections(net.nodes["loop"], late) > 0


def test_a_delay_behind_the_weights_costs_what_they_do_at_the_last_step_more() -> None:
    net, x = dense_network(), frames(5)
    short = {row.name: row for row in estimate(net, x).layers}
    net.nodes["late"] = nir.Delay(np.full(4, DT))
    net.nodes["loop"] = nir.Linear(net.nodes["loop"].weight)  # a bias would be late too
    net.edges = [edge for edge in net.edges if edge != ("loop", "hidden")] + [
        ("loop", "late"),
        ("late", "hidden"),
    ]
    spikes = run(net, x.numpy())["hidden"]
    (row,) = (row for row in estimate(net, x).layers if row.name == "loop")
    assert row.recurrent and row.counts["acs"] == connections(net.nodes["loop"], spikes)
    assert short.keys() == {row.name for row in estimate(net, x).layers}


def test_a_synaptic_current_is_a_second_state() -> None:
    x = frames(5)
    lif, cuba = (
        {row.name: row for row in estimate(dense_network(kind), x).layers}
        for kind in (nir.LIF, nir.CubaLIF)
    )
    row, updates = cuba["hidden"], 4 * T * B
    assert row.counts["updates"] == row.counts["multiplies"] == row.counts["adds"] == updates
    assert lif["hidden"].counts["adds"] == lif["hidden"].counts["multiplies"] == 0
    assert row.state_bytes == 2 * lif["hidden"].state_bytes == 32


def test_every_form_of_the_report_shows_them() -> None:
    report = estimate(dense_network(), frames(5))
    found = report.to_json()
    Draft202012Validator(schema()).validate(found)
    assert [layer["name"] for layer in found["layers"] if layer["recurrent"]] == ["loop"]
    acs = next(layer["counts"]["acs"] for layer in found["layers"] if layer["name"] == "loop")
    assert report.recurrent_acs == acs > 0
    for width in (80, 140):
        report.print(Console(file=(out := StringIO()), width=width))
        assert "loop (recurrent)" in out.getvalue() and "of them recurrent" in out.getvalue()
    assert "binary, recurrent</td>" in report.to_html() and "of them recurrent" in report.to_html()
    plain = dense_network()
    plain.edges.remove(("loop", "hidden"))
    del plain.nodes["loop"]
    plain.edges.remove(("hidden", "loop"))
    without = estimate(plain, frames(5))
    assert without.recurrent_acs == 0 and "recurrent" not in without.to_html()


def test_a_loop_without_a_neuron_is_not_counted() -> None:
    nodes = {"scale": nir.Scale(np.ones(2)), "late": nir.Delay(np.full(2, DT))}
    net = graph(
        (2,),
        (2,),
        nodes,
        ("input", "scale"),
        ("scale", "late"),
        ("late", "scale"),
        ("scale", "output"),
    )
    with pytest.raises(InputError, match="a loop through 'late' without a neuron"):
        read_structure(net)
