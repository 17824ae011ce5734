"""Checks that a network has an exact export.

Its layers must be known ones, and its neurons compute an equation of `zoo.neurons.Lif` and nothing
more. `check_modules` decides for every export, verification, energy figure and chip check, before
anything runs.
"""

from contextlib import suppress
from typing import Any

import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from zoo.blocks import Add, And, Block, IAnd, Projection, SamePool, Stage
from zoo.danet import DANet, Head, Readout, Repeat, Stem
from zoo.errors import ExportError
from zoo.neurons import Lif

__all__ = ["check_modules", "check_shapes", "lif_constants"]

WEIGHTED = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
POOLS = (nn.AvgPool2d, nn.MaxPool2d, SamePool)
LAYERS = (*WEIGHTED, *POOLS, nn.Identity, Add, And, IAnd, Repeat, Readout)
PARTS = (DANet, Stem, Stage, Block, Projection, Head)
CONTAINERS = (*PARTS, nn.Sequential, nn.ModuleList, nn.ModuleDict)
VALID = (
    "valid is zoo.neurons.Lif with an snn.Leaky that resets to zero or by subtraction "
    "(reset_delay=True) as its neuron"
)


def check_modules(model: nn.Module) -> None:
    """Raise `ExportError` for the first module, or option of a neuron, without an exact export.

    The message names it by its path and what it is.
    """
    neurons: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{neuron}.") for neuron in neurons):
            continue
        if type(module) is Lif:
            neurons.append(path)
            if reason := _obstacle(module.neuron):
                raise ExportError(f"{path}.neuron: {reason} has no exact export; {VALID}")
        elif parametrize.is_parametrized(module) or _is_pruned(module):
            raise ExportError(
                f"{path}: its weights are computed anew for each call; make them permanent first, "
                "with torch.nn.utils.prune.remove or "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
        elif not isinstance(module, LAYERS + CONTAINERS):
            raise ExportError(
                f"{path or 'the model'}: {_class(module)} has no export; for a neuron, {VALID}"
            )


def check_shapes(path: str, lif: Lif, shape: tuple[int, ...]) -> None:
    """Raise `ExportError` for a beta or threshold that does not fit a layer of neurons.

    `shape` is the layer's, `[C, H, W]`; there must be one number for each neuron.
    """
    for name, values in zip(("beta", "threshold"), lif_constants(lif), strict=True):
        try:
            fits = np.broadcast_shapes(tuple(values.shape), shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ExportError(
                f"{path}.neuron: {name} of shape {list(values.shape)} does not fit currents of "
                f"{list(shape)}; valid are [], one number, [{shape[0]}, 1, 1], one for each "
                f"channel, and {list(shape)}"
            )


def lif_constants(lif: Lif) -> tuple[Tensor, Tensor]:
    """Return beta, within [0, 1] as snnTorch takes it, and threshold.

    Both are float32 without a batch axis or a gradient: `[]`, `[C, 1, 1]` or `[C, H, W]`.
    """
    constants = (lif.neuron.beta, lif.neuron.threshold)
    beta, threshold = (value.detach().cpu().float() for value in constants)
    return _without_batch(beta.clamp(0, 1)), _without_batch(threshold)


def _without_batch(values: Tensor) -> Tensor:
    while values.dim() > 3 and len(values) == 1:
        values = values[0]
    return values


def _obstacle(neuron: Any) -> str | None:
    """Return what of a neuron is not in the equations of `Lif`; None if it computes one of them."""
    if type(neuron) is not snn.Leaky:
        return _class(neuron)
    resets = (neuron._base_zero, neuron._base_sub)
    unlike_step = "spike_grad whose spikes are not 1 above the threshold and 0 elsewhere"
    options = {
        "init_hidden=True": neuron.init_hidden,
        "inhibition=True": neuron.inhibition,
        "state_quant": neuron.state_quant,
        "reset_delay=False": not neuron.reset_delay,
        # Not `reset_mechanism`: to set it changes what snnTorch says, not what it does.
        'reset_mechanism="none"': neuron.state_function not in resets,
        "graded_spikes_factor other than 1": bool(neuron.graded_spikes_factor.ne(1).any()),
        unlike_step: not _is_step(neuron.spike_grad),
    }
    for name in ("beta", "threshold"):
        values = getattr(neuron, name)
        # Membranes would be float64, too.
        options[f"{name} of {values.dtype}"] = values.dim() > 0 and values.dtype == torch.float64
        options[f"{name} of NaN"] = not values.is_meta and values.isnan().any()
    wrong = [option for option, is_set in options.items() if is_set]
    return f"snn.Leaky with {' and '.join(wrong)}" if wrong else None


def _is_step(spike_grad: object) -> bool:
    """Return whether a surrogate fires where its argument is above zero, and only there."""
    assert callable(spike_grad)
    u = torch.linspace(-2, 2, 401, device="cpu")  # a model may be built on "meta"
    with (
        torch.device("cpu"),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        suppress(TypeError),
    ):
        return torch.equal(spike_grad(u), (u > 0).float())
    return False  # `surrogate.LSO()` of snnTorch 1.0 cannot be called with an argument alone


def _is_pruned(module: nn.Module) -> bool:
    hooks = module._forward_pre_hooks.values()
    return any(isinstance(hook, prune.BasePruningMethod) for hook in hooks)


def _class(module: nn.Module) -> str:
    """Return package and class of a module, as `torch.ReLU`."""
    kind = type(module)
    return f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"
