"""Learned, tuned and replaced neurons: exported exactly, or refused by name before anything runs or
is written.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from support.networks import lively
from torch import nn
from torch.nn.utils import prune

from export.energy import estimate
from export.nir.exporter import to_nir
from export.nir.writer import write_nir
from export.onnx.exporter import to_onnx, write_onnx
from export.onnx.importer import read_onnx
from zoo.danet import DANet
from zoo.errors import ExportError

PLACE = "stage1.block0.lif1"
CHANNELS = torch.tensor([0.25, 0.5, 0.9, 1.25]).reshape(4, 1, 1)
BASE = {"beta": 0.5, "reset_mechanism": "zero"}


def network(neuron: nn.Module | None = None, name: str = "danet20-t2.fmnist") -> DANet:
    model = lively(name, 12, widths=(4, 6, 8))
    if neuron is not None:
        model.get_submodule(PLACE).neuron = neuron
    return model


def leaky(**options: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inhibition is an unstable feature
        return snn.Leaky(**BASE | options)


EXACT: dict[str, dict[str, Any]] = {
    "learned beta": {"learn_beta": True},
    "learned threshold": {"learn_threshold": True},
    "learned both, by subtraction": {
        "learn_beta": True,
        "learn_threshold": True,
        "reset_mechanism": "subtract",
    },
    "beta of each channel": {"beta": CHANNELS.clamp(0, 0.9), "learn_beta": True},
    "beta of each channel, some 1": {"beta": CHANNELS},
    "beta with a batch axis": {"beta": CHANNELS[None].clamp(0, 0.9)},
    "threshold of each channel": {"threshold": CHANNELS, "learn_threshold": True},
    "both of each channel, by subtraction": {
        "beta": CHANNELS,
        "threshold": CHANNELS,
        "reset_mechanism": "subtract",
    },
    "beta of each neuron": {"beta": torch.linspace(0.1, 0.9, 4 * 144).reshape(4, 12, 12)},
    "beta above 1": {"beta": 1.5},
    "beta below 0": {"beta": -0.5},
    "whole threshold": {"threshold": 1},
    "output": {"output": True},
    "learned graded spikes of 1": {"learn_graded_spikes_factor": True},
    "no surrogate": {"surrogate_disable": True},
    "another surrogate": {"spike_grad": surrogate.fast_sigmoid()},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT)
def test_exported_exactly(options: dict[str, Any], tmp_path: Path) -> None:
    """As NIR for simulators and for chips, as ONNX in both forms and of integers, and read back."""
    dialect = "native" if options.get("reset_mechanism") == "subtract" else "portable"
    model = network(leaky(**options))
    verifications: list[Any] = [write_nir(model, tmp_path / "model.nir", dialect=dialect)]  # type: ignore[arg-type]
    for form in ("sequence", "step"):
        verifications.append(write_onnx(model, tmp_path / f"{form}.onnx", form=form))  # type: ignore[arg-type]
    assert all(v and v.ok for v in verifications)
    back, x = read_onnx(tmp_path / "sequence.onnx"), torch.randn(2, 1, 12, 12)
    assert torch.equal(
        back.get_submodule(PLACE)(current := torch.randn(4, 4, 12, 12)),
        model.get_submodule(PLACE)(current),
    )
    assert estimate(model, x).layers


def pruned() -> DANet:
    model = network()
    prune.random_unstructured(model.get_submodule("stage1.block0.conv1"), "weight", 0.5)
    return model


def replaced(module: nn.Module) -> DANet:
    model = network()
    model.set_submodule(PLACE, module)
    return model


REFUSED = {
    "init_hidden": (
        lambda: network(leaky(init_hidden=True)),
        "lif1.neuron: snn.Leaky with init_hidden=True has no",
    ),
    "inhibition": (lambda: network(leaky(inhibition=True)), "inhibition=True"),
    "no reset": (lambda: network(leaky(reset_mechanism="none")), 'reset_mechanism="none"'),
    "no delay": (lambda: network(leaky(reset_delay=False)), "reset_delay=False"),
    "state_quant": (lambda: network(leaky(state_quant=torch.round)), "state_quant"),
    "graded": (
        lambda: network(leaky(graded_spikes_factor=2.0)),
        "graded_spikes_factor other than 1",
    ),
    "ramp": (lambda: network(leaky(spike_grad=lambda u: u.clamp(0, 1))), "spike_grad whose spikes"),
    "LSO": (lambda: network(leaky(spike_grad=surrogate.LSO())), "spike_grad whose spikes"),
    "misfit": (
        lambda: network(leaky(beta=torch.rand(5, 1, 1))),
        r"beta of shape \[5, 1, 1\] does not fit currents of \[4,",
    ),
    "double": (lambda: network(leaky(beta=torch.rand(4, 1, 1).double())), "beta of torch.float64"),
    "Synaptic": (
        lambda: network(snn.Synaptic(0.9, 0.5)),
        "lif1.neuron: snntorch.Synaptic has no exact export",
    ),
    "Alpha": (lambda: network(snn.Alpha(0.9, 0.5)), "snntorch.Alpha"),
    "Lapicque": (lambda: network(snn.Lapicque(0.9)), "snntorch.Lapicque"),
    "RLeaky": (lambda: network(snn.RLeaky(0.9, all_to_all=False)), "snntorch.RLeaky"),
    "itself": (
        lambda: replaced(leaky()),
        "lif1: snntorch.Leaky has no export; for a neuron, valid is zoo.neurons.Lif",
    ),
    "ReLU": (lambda: replaced(nn.ReLU()), "lif1: torch.ReLU has no export"),
    "pruned": (pruned, r"stage1\.block0\.conv1: its weights are computed anew"),
}


@pytest.mark.parametrize(("build", "said"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(build: Any, said: str) -> None:
    model = build()
    for job in (to_nir, to_onnx, lambda model: estimate(model, torch.zeros(1, 1, 12, 12))):
        with pytest.raises(ExportError, match=said) as error:
            job(model)
        assert "\n" not in str(error.value) and "stage1.block0" in str(error.value)
