"""Warnings beside the figures of a result: neurons that never fired, and an assumed time step.

Every command and report takes its sentence from here.

Where no neuron of a network fires, its output does not depend on its input, so that accuracies,
energies and comparisons of it mean little, however exact they are.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zoo.errors import first_few

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

__all__ = [
    "NO_SPIKES",
    "assumed_dt",
    "is_silent",
    "silence_note",
    "silent_layers",
    "watch_spikes",
]

NO_SPIKES = (
    "no neuron fired on this input, so that this result proves little: try another scaling of the "
    "input, lower thresholds, or for a NIR graph another time step dt, as 1 for IF neurons in "
    "units of steps"
)
MAX_NAMED = 3  # silent layers that a sentence names


def assumed_dt(dt: float) -> str:
    """Return a sentence about a time step, in seconds, that neither a graph nor its user gave."""
    return (
        f"a time step of {dt:g} s was assumed, as neither the graph's metadata nor dt says one, "
        "and its neurons depend on it"
    )


def silent_layers(spikes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the layers of neurons that never fired, of spikes by layer."""
    return tuple(name for name, fired in spikes.items() if not fired)


def is_silent(spikes: Mapping[str, int]) -> bool:
    """Return whether there are neurons, and none of any layer fired."""
    return bool(spikes) and not any(spikes.values())


def silence_note(spikes: Mapping[str, int]) -> str:
    """Return a sentence about the layers that never fired; empty where every layer did."""
    if is_silent(spikes):
        return NO_SPIKES
    silent = silent_layers(spikes)
    if not silent:
        return ""
    named = first_few(silent, MAX_NAMED)
    return f"{len(silent)} of {len(spikes)} layers of neurons never fired: {named}"


def watch_spikes(model: "nn.Module") -> Callable[[], bool]:
    """Watch a model's neurons from now on, and return a function that says whether any has fired.

    With the first spike the watch ends, and costs nothing more.
    """
    from zoo.neurons import Lif  # imports torch, which who only reads sentences does not need

    fired: list[bool] = []
    handles: list[RemovableHandle] = []

    def watch(module: "nn.Module", args: object, spikes: "Tensor") -> None:
        if not fired and bool(spikes.any()):
            fired.append(True)
            for handle in handles:
                handle.remove()

    layers = [module for module in model.modules() if isinstance(module, Lif)]
    handles += [layer.register_forward_hook(watch) for layer in layers]
    return lambda: bool(fired)
