"""The placement of layers on cores: which core takes which layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from export.targets.layers import ChipLayer, Network
from export.targets.limits import Cores

__all__ = ["Place", "Placement", "match", "most_features", "place", "resources"]

# Loihi: the bits before each 64 weights, and the bits that memory is given out by.
HEADER_BITS, BLOCK_WEIGHTS, UNIT_BITS = 10, 64, 64


@dataclass(frozen=True)
class Place:
    """The place of a layer; `core` is the number of a core that takes it whole, if one is left."""

    needs: dict[str, int]  # of each resource
    core: int | None
    cores: int
    # Of the scarcest resource of its cores, 1 for all of it; of the largest core where the layer
    # has none.
    use: float


@dataclass(frozen=True)
class Placement:
    """Which layer lies on which core, and which lies on none."""

    places: dict[str, Place]  # by layer
    too_large: tuple[str, ...]  # layers that no core can take, were it free
    left_out: tuple[str, ...]  # layers that find no core because others have them
    needed: int
    present: int


def resources(layer: ChipLayer, network: Network, names: tuple[str, ...]) -> dict[str, int]:
    """Return what a layer needs of some resources."""
    return {name: NEEDS[name](layer, network) for name in names}


def place(network: Network, cores: Cores) -> Placement:
    """Return which core takes which layer; as many layers as can have one."""
    names = tuple(cores.kinds[0].resources)
    needs = {name: resources(layer, network, names) for name, layer in network.layers.items()}
    return _split(needs, cores) if cores.placement == "split" else _match_cores(needs, cores)


def _split(needs: dict[str, dict[str, int]], cores: Cores) -> Placement:
    """Give each layer as many cores as it needs."""
    present = cores.kinds[0].resources
    places = {}
    for name, need in needs.items():
        used = {key: need[key] / present[key] for key in present}
        count = max(1, *map(math.ceil, used.values()))
        places[name] = Place(need, None, count, max(used.values()) / count)
    needed = sum(spot.cores for spot in places.values())
    return Placement(places, (), (), needed, cores.count)


def _match_cores(needs: dict[str, dict[str, int]], cores: Cores) -> Placement:
    """Give each layer a core that takes it whole."""
    every = [kind.resources for kind in cores.kinds for _ in range(kind.count)]
    uses_of = {
        name: [max(need[key] / present[key] for key in need) for present in every]
        for name, need in needs.items()
    }
    # A layer tries the cores that it fills best first, so that the large ones stay free; `match`
    # moves it if need be.
    fits = {
        name: sorted((i for i, use in enumerate(uses) if use <= 1), key=lambda i: -uses[i])
        for name, uses in uses_of.items()
    }
    taken = match(fits)
    places = {}
    for name, uses in uses_of.items():
        core = taken.get(name)
        places[name] = Place(needs[name], core, 1, min(uses) if core is None else uses[core])
    too_large = tuple(name for name, choice in fits.items() if not choice)
    left_out = tuple(name for name, choice in fits.items() if choice and name not in taken)
    return Placement(places, too_large, left_out, len(needs), cores.count)


def match(choices: dict[str, list[int]]) -> dict[str, int]:
    """Return a largest matching of names with numbers, each name with one of its choices.

    It is found by augmenting paths.
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


def most_features(layer: ChipLayer, cores: Cores) -> int:
    """Return the most output channels with which some core would take the layer.

    It is 0 if no core takes it with a single one.
    """
    kinds = [kind.resources for kind in cores.kinds]
    most = max(max(present.values()) for present in kinds)  # a channel takes a word at least
    for features in range(min(layer.channels - 1, most), 0, -1):
        needs = {
            "kernel_words": _kernel_words(layer, features),
            "neuron_words": _neuron_words(layer, features),
            "biases": features if any(w.biased for w in layer.weights) else 0,
        }
        if any(all(needs.get(key, 0) <= n for key, n in present.items()) for present in kinds):
            return features
    return 0


def _power(number: int) -> int:
    """Return the next power of two."""
    return 1 << (number - 1).bit_length()


def _kernel_words(layer: ChipLayer, features: int | None = None) -> int:
    """Return the kernel memory of Speck: c 2^(ceil(log2 kx ky) + ceil(log2 f)).

    A layer without weights is a 1x1 convolution that passes spikes on. Groups are written out, with
    zeros between them.
    """
    if not layer.weights:
        return layer.channels * _power(features or layer.channels)
    return sum(
        w.channels * _power(math.prod(w.kernel)) * _power(features or w.features)
        for w in layer.weights
    )


def _neuron_words(layer: ChipLayer, features: int | None = None) -> int:
    """Return the neuron memory of Speck, before the pool: f 2^(ceil(log2 h) + ceil(log2 w))."""
    return (features or layer.channels) * math.prod(_power(n) for n in layer.shape[1:])


def _synapse_bits(layer: ChipLayer) -> int:
    """Return the synaptic memory of Loihi: 64 weights of 8 bits and a header, in its units."""
    block = math.ceil((8 * BLOCK_WEIGHTS + HEADER_BITS) / UNIT_BITS) * UNIT_BITS
    return sum(math.ceil(w.values.size / BLOCK_WEIGHTS) * block for w in layer.weights)


NEEDS: dict[str, Callable[[ChipLayer, Network], int]] = {
    "kernel_words": lambda layer, _: _kernel_words(layer),
    "neuron_words": lambda layer, _: _neuron_words(layer),
    "biases": lambda layer, _: max((w.features for w in layer.weights if w.biased), default=0),
    "neurons": lambda layer, _: layer.neurons,
    "synapse_bits": lambda layer, _: _synapse_bits(layer),
    "out_axons": lambda layer, network: layer.neurons * len(network.readers[layer.name]),
    "weight_bytes": lambda layer, _: sum(w.values.size for w in layer.weights),
}
