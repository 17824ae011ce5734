"""Counts against those of NeuroBench, SpikingJelly and syops-counter, layer by layer: no
difference.

benchmarks/energy_peers.py prints them.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import energy_peers

SMALL = [name for name in energy_peers.NETWORKS if "fmnist" in name]


@pytest.mark.parametrize("pruned", [0.0, 0.5])
@pytest.mark.parametrize("name", SMALL)
def test_neurobench(name, pruned):
    model = energy_peers.lively(name, pruned)
    found = list(energy_peers.neurobench(model, energy_peers.noise(model, 2)))
    assert len(found) > 8 and [d for d in found if d.ours != d.theirs] == []
    assert sum(d.ours for d in found) > 1e6


@pytest.mark.parametrize("name", SMALL)
def test_spikingjelly(name):
    model = energy_peers.lively(name)
    found = list(energy_peers.spikingjelly(model, energy_peers.noise(model, 2)))
    assert len(found) > 4 and [d for d in found if d.ours != d.theirs] == []


@pytest.mark.parametrize("name", SMALL)
def test_the_convention_syops_is_what_syops_counter_says(name):
    model = energy_peers.lively(name)
    found = list(energy_peers.syops(model, energy_peers.noise(model, 2)))
    odd = [
        difference for pair in found for difference in pair if difference.ours != difference.theirs
    ]
    assert len(found) > 40 and odd == []
    assert all(
        sum(difference.theirs for difference in kind) > 1e6 for kind in zip(*found, strict=True)
    )
