"""Counts equal those of NeuroBench, SpikingJelly and syops-counter in every layer.

benchmarks/energy_peers.py prints them.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import energy_peers
from energy_peers import Difference

SMALL = [name for name in energy_peers.NETWORKS if "fmnist" in name]


def unequal(rows: Iterable[Difference]) -> list[Difference]:
    return [row for row in rows if row.ours != row.theirs]


@pytest.mark.parametrize("pruned", [0.0, 0.5])
@pytest.mark.parametrize("name", SMALL)
def test_neurobench(name: str, pruned: float) -> None:
    model = energy_peers.lively(name, pruned)
    rows = list(energy_peers.neurobench(model, energy_peers.noise(model, 2)))
    assert len(rows) > 8 and unequal(rows) == []
    assert sum(row.ours for row in rows) > 1e6


@pytest.mark.parametrize("name", SMALL)
def test_spikingjelly(name: str) -> None:
    model = energy_peers.lively(name)
    rows = list(energy_peers.spikingjelly(model, energy_peers.noise(model, 2)))
    assert len(rows) > 4 and unequal(rows) == []


@pytest.mark.parametrize("name", SMALL)
def test_the_convention_syops_counts_what_syops_counter_counts(name: str) -> None:
    model = energy_peers.lively(name)
    pairs = list(energy_peers.syops(model, energy_peers.noise(model, 2)))
    assert len(pairs) > 40 and unequal(row for pair in pairs for row in pair) == []
    for rows in zip(*pairs, strict=True):  # of AC, of MAC
        assert sum(row.theirs for row in rows) > 1e6
