"""What a result must say beside its figures: neurons that never fired, and a time step that nobody
gave. One place decides it, in one sentence, for every command and report.

Where no neuron of a network fires, its output does not depend on its input, so that accuracies,
energies and comparisons of it mean little, however exact they are.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

__all__ = [
    "NO_SPIKES",
    "assumed_dt",
    "is_silent",
    "silent_layers",
    "watch_spikes",
    "what_is_silent",
]

NO_SPIKES = (
    "no neuron fired on this input, so that this result proves little: try another scaling of the input, lower thresholds, or for "
    "a NIR graph another time step dt, as 1 for IF neurons in units of steps"
)
NAMED = 3  # silent layers that a sentence names


def assumed_dt(dt: float) -> str:
    """A sentence about a time step in seconds that neither a graph nor its user gave."""
    return f"a time step of {dt:g} s was assumed, as neither the graph's metadata nor dt says one, and its neurons depend on it"


def silent_layers(spikes: Mapping[str, int]) -> tuple[str, ...]:
    """The layers of neurons that never fired; `spikes` has how often each did."""
    return tuple(name for name, fired in spikes.items() if not fired)


def is_silent(spikes: Mapping[str, int]) -> bool:
    """Whether there are neurons, and none of any layer fired."""
    return bool(spikes) and not any(spikes.values())


def what_is_silent(spikes: Mapping[str, int]) -> str:
    """A sentence about the layers that never fired; empty where every layer did."""
    if is_silent(spikes):
        return NO_SPIKES
    silent = silent_layers(spikes)
    more = ", ..." if len(silent) > NAMED else ""
    return (
        f"{len(silent)} of {len(spikes)} layers of neurons never fired: {', '.join(silent[:NAMED])}{more}"
        if silent
        else ""
    )


def watch_spikes(model: "nn.Module") -> Callable[[], bool]:
    """Look at what a model's neurons send from now on. The function returned says whether any has
    fired; with the first spike the looking ends, and costs nothing more.
    """
    from zoo.neurons import Lif  # whose import of torch those do not need who only read sentences

    fired: list[bool] = []
    handles: list[RemovableHandle] = []

    def look(module: "nn.Module", args: object, train: "Tensor") -> None:
        if not fired and bool(train.any()):
            fired.append(True)
            for handle in handles:
                handle.remove()

    handles += [
        module.register_forward_hook(look) for module in model.modules() if isinstance(module, Lif)
    ]
    return lambda: bool(fired)
