"""Cycles of a NIR graph: they say which edge of a recurrent connection is late.

A graph says it by a `Delay`, or not at all. Simulators agree that a neuron on a cycle reads the
spikes of the step before. `sources` are the nodes that each node reads.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import nir
import numpy as np

from export.nir.nodes import NEURONS, SPIKING, delay_steps
from zoo.errors import ExportError
from zoo.records import shown

__all__ = ["cycles", "delay_feedback", "in_order", "reached", "readers_of"]


def delay_feedback(nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float) -> None:
    """Add a `Delay` of one step to each cycle that has none, behind its neuron.

        input -> neuron -> delay -> weights -> neuron

    The next layer reads the neuron itself, and so the spikes of this step. What is late are the
    spikes, not the weighted current, so that a bias acts from the first step on. Only nodes that
    others outside of the cycle read too, and that the input reaches through the neuron alone, come
    before the `Delay`. Raises `ExportError` for a cycle that leaves open which edge is late.
    """
    readers = readers_of(sources)
    for cycle in cycles(_this_step(nodes, sources, dt)):
        entries = {name for name in cycle if not cycle.issuperset(sources[name])}
        if (neuron := _last_neuron(nodes, sources, readers, cycle, entries)) is None:
            continue
        others = cycle - {neuron}
        ahead = reached(entries, readers, others)  # nodes that read the input of this step
        exits = {name for name in others - ahead if not cycle.issuperset(readers[name])}
        behind = reached(exits, sources, others) | {neuron}
        for name in [name for name in sources if name in behind]:
            late = [
                reader
                for reader in readers[name]
                if reader in cycle and (reader == neuron or reader not in behind)
            ]
            if late:
                delay = f"{name}.delay"
                while delay in nodes:
                    delay += "_"
                nodes[delay], sources[delay] = nir.Delay(np.array(dt)), (name,)
                for reader in late:
                    sources[reader] = tuple(
                        delay if source == name else source for source in sources[reader]
                    )


def _last_neuron(
    nodes: dict[str, Any],
    sources: dict[str, tuple[str, ...]],
    readers: dict[str, list[str]],
    cycle: set[str],
    entries: set[str],
) -> str | None:
    """Return the neuron of a cycle whose past spikes are read, or None for a cycle without one.

    That is the only neuron; or in a ring of several that is entered at one node, the last one
    before this entry, as nirtorch reads it. A membrane that a `Threshold` reads is one neuron with
    it, and its spikes are those of the `Threshold`.
    """
    neurons = {name for name in cycle if type(nodes[name]) in (*NEURONS, *SPIKING)}
    neurons -= {
        name for name in neurons if _fires_elsewhere(nodes, name, cycle.intersection(readers[name]))
    }
    if len(neurons) < 2:
        return next(iter(neurons), None)
    before = {name: [source for source in sources[name] if source in cycle] for name in cycle}
    if len(entries) == 1 and all(len(read) == 1 for read in before.values()):
        (name,) = entries
        while (name := before[name][0]) not in neurons:
            pass
        return name
    one, other = [name for name in nodes if name in neurons][:2]
    path = _named([*_way(one, other, readers, cycle), *_way(other, one, readers, cycle)[1:]])
    raise ExportError(
        f"a cycle through several neurons, in which nothing says which edge is late: {path}; put a "
        "Delay of one step on that edge"
    )


def _fires_elsewhere(nodes: dict[str, Any], name: str, readers: set[str]) -> bool:
    """Return whether a membrane has its spikes in the `Threshold`s that read it."""
    return type(nodes[name]) not in SPIKING and all(
        type(nodes[reader]) is nir.Threshold for reader in readers
    )


def in_order(nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float) -> list[str]:
    """Return every node after those that it reads; a `Delay` of a step or more reads the past.

    Raises `ExportError` for a cycle without such a `Delay`.
    """
    try:
        return [*TopologicalSorter(_this_step(nodes, sources, dt)).static_order()]
    except CycleError as error:
        path = _named(error.args[1])
        raise ExportError(
            f"a cycle without a Delay of a step or more: {path}; as it has no neuron, put one on "
            "the edge that is late"
        ) from None


def _this_step(
    nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float
) -> dict[str, tuple[str, ...]]:
    """Return what each node reads of this step: nothing, for a `Delay` of a step or more."""
    delays = {
        name: delay_steps(name, node, dt) for name, node in nodes.items() if type(node) is nir.Delay
    }
    late = {name for name, steps in delays.items() if steps.min() > 0}
    return {name: () if name in late else read for name, read in sources.items()}


def readers_of(sources: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return which nodes read each node, in order."""
    readers: dict[str, list[str]] = {name: [] for name in sources}
    for name, read in sources.items():
        for source in read:
            readers[source].append(name)
    return readers


def cycles(sources: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Return the largest sets of nodes that all reach each other.

    They are the strongly connected components of more than a lone node, by Kosaraju's algorithm.
    """
    finished: dict[str, None] = {}
    seen: set[str] = set()
    for start in sources:
        path = [] if start in seen else [(start, iter(sources[start]))]
        seen.add(start)
        while path:
            name, rest = path[-1]
            following = next((other for other in rest if other not in seen), None)
            if following is None:
                finished[path.pop()[0]] = None
            else:
                seen.add(following)
                path.append((following, iter(sources[following])))
    readers = readers_of(sources)
    components, left = [], set(sources)
    for name in reversed(finished):
        if name in left:
            component = reached([name], readers, left)
            left -= component
            if len(component) > 1 or name in readers[name]:
                components.append(component)
    return components


def reached(
    starts: Iterable[str], following: Mapping[str, Iterable[str]], within: set[str]
) -> set[str]:
    """Return the `starts` that lie `within`, and the nodes `within` that are reached from them."""
    names = {name for name in starts if name in within}
    waiting = [*names]
    while waiting:
        fresh = {name for name in following[waiting.pop()] if name in within} - names
        names |= fresh
        waiting += fresh
    return names


def _way(start: str, end: str, readers: Mapping[str, Iterable[str]], within: set[str]) -> list[str]:
    """Return the nodes on a shortest way `within` from `start` to `end`, both included."""
    came = {start: start}
    waiting = deque([start])
    while end not in came:
        name = waiting.popleft()
        for reader in readers[name]:
            if reader in within and reader not in came:
                came[reader] = name
                waiting.append(reader)
    way = [end]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _named(path: list[str]) -> str:
    """Return the nodes of a path for a message."""
    names = [shown(name) for name in path]
    return " -> ".join(names if len(names) <= 8 else [*names[:4], "...", *names[-3:]])
