"""The spikes inside a network: which each layer of neurons sends, and how often it fires.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels of the layer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError, first_few, nearest
from zoo.neurons import Lif

__all__ = ["LayerSpikes", "eval_mode", "forward_hooks", "layer_spikes"]


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
    """Return the spikes of each layer of neurons by name, in the order in which they are computed.

    `layers` are names or patterns of names, and `x` is input of the model. See `zoo.features`.

    Raises:
        InputError: for a pattern that matches no layer, or input that the model cannot take.
    """
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, Lif)}
    patterns = [layers] if isinstance(layers, str) else layers
    chosen = {name: neurons[name] for name in _matching_names([*neurons], patterns)}
    by_layer: dict[str, LayerSpikes] = {}

    def record(name: str) -> Callable[[Lif, Any, Tensor], None]:
        def hook(module: Lif, args: Any, spikes: Tensor) -> None:
            fired = spikes.gt(0).reshape(module.steps, -1, *spikes.shape[1:])  # [T, B, C, H, W]
            by_layer[name] = LayerSpikes(name, fired)

        return hook

    with eval_mode(model), forward_hooks(chosen, record), torch.no_grad():
        model(x)
    return by_layer


@contextmanager
def forward_hooks(
    modules: Mapping[str, nn.Module],
    make_hook: Callable[[str], Callable[..., None]],
    *,
    before: bool = False,
) -> Iterator[None]:
    """Give each of `modules` the hook `make_hook(name)` inside the context.

    It is called after the module's forward pass, or `before` it.
    """
    register = nn.Module.register_forward_pre_hook if before else nn.Module.register_forward_hook
    handles = [register(module, make_hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of `model` in eval mode inside the context, and back afterwards."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _matching_names(names: list[str], patterns: Sequence[str]) -> list[str]:
    """Return the names that match any pattern; raise `InputError` for one that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            remedy = nearest(pattern, names) or f"; there are {first_few(names, 3)}"
            if not names:
                remedy = ", which has none that the zoo knows (zoo.neurons.Lif)"
            raise InputError(f"{pattern!r} is no layer of neurons of this model{remedy}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
