"""Which core takes which layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from export.targets.layers import Layer, Network
from export.targets.limits import Cores

__all__ = ["Place", "Placement", "match", "most_features", "place", "resources"]

# Loihi: bits before each 64 weights, and the bits that memory is given out by
HEADER_BITS, BLOCK, UNIT = 10, 64, 64


@dataclass(frozen=True)
class Place:
    """Where a layer lies. `core`: the number of a core that takes it whole, if there is one left."""

    needs: dict[str, int]  # of each resource
    core: int | None
    cores: int
    # of the scarcest resource of its cores, 1 for all of it; of the largest core where the layer
    # has none
    use: float


@dataclass(frozen=True)
class Placement:
    """Which layer lies on which core, and which lies on none."""

    places: dict[str, Place]  # by layer
    too_large: tuple[str, ...]  # layers that no core can take, were it free
    left_out: tuple[str, ...]  # layers that find no core because others have them
    needed: int
    present: int


def resources(layer: Layer, network: Network, names: tuple[str, ...]) -> dict[str, int]:
    """What a layer needs of some resources."""
    return {name: NEEDS[name](layer, network) for name in names}


def place(network: Network, cores: Cores) -> Placement:
    """Give cores to layers: as many as can have one, where a core takes a layer whole."""
    names = tuple(cores.kinds[0][1])
    needs = {name: resources(layer, network, names) for name, layer in network.layers.items()}
    if cores.placement == "split":
        have = cores.kinds[0][1]
        counts = {
            name: max(1, *(math.ceil(need[key] / have[key]) for key in names))
            for name, need in needs.items()
        }
        uses = {
            name: max(need[key] / have[key] for key in names) / counts[name]
            for name, need in needs.items()
        }
        places = {name: Place(need, None, counts[name], uses[name]) for name, need in needs.items()}
        return Placement(places, (), (), sum(counts.values()), cores.count)
    every = [have for count, have in cores.kinds for _ in range(count)]
    uses_of = {
        name: [max(need[key] / have[key] for key in names) for have in every]
        for name, need in needs.items()
    }
    # A layer tries the cores that it fills best first, so that the large ones stay free; `match`
    # moves it if need be.
    fits = {
        name: sorted((i for i, u in enumerate(uses) if u <= 1), key=lambda i: -uses[i])
        for name, uses in uses_of.items()
    }
    taken = match(fits)
    places = {
        name: Place(
            needs[name], taken.get(name), 1, uses[taken[name]] if name in taken else min(uses)
        )
        for name, uses in uses_of.items()
    }
    too_large = tuple(name for name, choice in fits.items() if not choice)
    left_out = tuple(name for name, choice in fits.items() if choice and name not in taken)
    return Placement(places, too_large, left_out, len(needs), cores.count)


def match(choices: dict[str, list[int]]) -> dict[str, int]:
    """A largest matching of names with numbers, each name with one of its choices, by augmenting
    paths.
    """
    owner: dict[int, str] = {}

    def find(name: str, seen: set[int]) -> bool:
        for number in choices[name]:
            if number not in seen:
                seen.add(number)
                if number not in owner or find(owner[number], seen):
                    owner[number] = name
                    return True
        return False

    for name in choices:
        find(name, set())
    return {name: number for number, name in sorted(owner.items())}


def most_features(layer: Layer, cores: Cores) -> int:
    """The most output channels with which some core would take the layer; 0 if none does with a
    single one.
    """
    most = max(max(kind.values()) for _, kind in cores.kinds)  # a channel takes a word at least
    for features in range(min(layer.channels - 1, most), 0, -1):
        words = {
            "kernel_words": _kernel_words(layer, features),
            "neuron_words": _neuron_words(layer, features),
        }
        words["biases"] = features if any(w.biased for w in layer.weights) else 0
        if any(
            all(words.get(key, 0) <= have for key, have in kind.items()) for _, kind in cores.kinds
        ):
            return features
    return 0


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _kernel_words(layer: Layer, features: int | None = None) -> int:
    """Speck: c 2^(ceil(log2 kx ky) + ceil(log2 f)); a layer without weights is a 1x1 convolution
    that passes spikes on.

    Groups are written out, with zeros between them.
    """
    if not layer.weights:
        return layer.channels * _power(features or layer.channels)
    return sum(
        w.channels * _power(math.prod(w.kernel)) * _power(features or w.features)
        for w in layer.weights
    )


def _neuron_words(layer: Layer, features: int | None = None) -> int:
    """Speck: f 2^(ceil(log2 h) + ceil(log2 w)), of the neurons before their pool."""
    return (features or layer.channels) * math.prod(_power(n) for n in layer.shape[1:])


def _synapse_bits(layer: Layer) -> int:
    """Loihi: 64 weights of 8 bits and a header, in units of memory."""
    block = math.ceil((8 * BLOCK + HEADER_BITS) / UNIT) * UNIT
    return sum(math.ceil(w.values.size / BLOCK) * block for w in layer.weights)


NEEDS: dict[str, Callable[[Layer, Network], int]] = {
    "kernel_words": lambda layer, _: _kernel_words(layer),
    "neuron_words": lambda layer, _: _neuron_words(layer),
    "biases": lambda layer, _: max((w.features for w in layer.weights if w.biased), default=0),
    "neurons": lambda layer, _: layer.neurons,
    "synapse_bits": lambda layer, _: _synapse_bits(layer),
    "out_axons": lambda layer, network: layer.neurons * len(network.readers[layer.name]),
    "weight_bytes": lambda layer, _: sum(w.values.size for w in layer.weights),
}
