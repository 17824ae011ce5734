"""The spikes inside a network: what each layer of neurons sends for given images, and how often it
fires.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels of the layer.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.neurons import Lif

__all__ = ["LayerSpikes", "evaluating", "layer_spikes", "watching"]


@dataclass(frozen=True, eq=False)
class LayerSpikes:
    """The spikes that one layer of neurons sent, and how often it fired."""

    name: str  # path of the module, as in `stage1.block0.lif1`
    spikes: Tensor  # bool [T, B, C, H, W]: whether a neuron fired

    @property
    def rate(self) -> float:
        """Spikes per neuron and time step, from 0 to 1."""
        return int(self.spikes.count_nonzero()) / self.spikes.numel()


def layer_spikes(
    model: nn.Module, x: Tensor, layers: str | Sequence[str] = "*"
) -> dict[str, LayerSpikes]:
    """The spikes of each layer of neurons, by name, in the order in which they are computed: see
    `zoo.features`.
    """
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, Lif)}
    chosen = _matching([*neurons], [layers] if isinstance(layers, str) else layers)
    found: dict[str, LayerSpikes] = {}

    def keep(name: str) -> Callable[[Lif, Any, Tensor], None]:
        def hook(module: Lif, args: Any, spikes: Tensor) -> None:
            found[name] = LayerSpikes(
                name, spikes.gt(0).reshape(module.steps, -1, *spikes.shape[1:])
            )

        return hook

    with (
        evaluating(model),
        watching({name: neurons[name] for name in chosen}, keep),
        torch.no_grad(),
    ):
        model(x)
    return found


@contextmanager
def watching(modules: dict[str, Any], hook: Callable[[str], Callable[..., None]]) -> Iterator[None]:
    """Inside, `hook(name)` is the forward hook of each of `modules`."""
    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, every module of `model` is in eval mode; afterwards, each in the mode it was in."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _matching(names: list[str], patterns: Sequence[str]) -> list[str]:
    """The names that match any of the patterns. Raises `InputError` for a pattern that matches
    none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
            raise InputError(
                f"{pattern!r} is no layer of neurons of this model"
                + (
                    f"; nearest are {', '.join(near)}"
                    if near
                    else ", which has none that the zoo knows (zoo.neurons.Lif)"
                )
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
