"""Synaptic events and energy of layers on Loihi: our exact counts beside SANA-FE's simulation.

    make .venv-sanafe/installed
    python benchmarks/loihi_sanafe.py [NAME_OR_FOLDER ...] [--layers N] [--images N]
                                      [--placement pixels|channels] [--python PATH]

SANA-FE (Boyle et al., IEEE TCAD 2025, doi:10.1109/TCAD.2025.3537971) simulates chips event by
event. It is under the GPL-3, so it has an environment and a process of its own (`sanafe_once.py`).
It is given a convolution as a list of connections, one for each weight that is not zero and each
position where its tap lies inside the map, the neurons behind it, and the input spikes that were
recorded in our network; no count of ours. Its neurons integrate and fire by themselves, so their
spikes, compared with ours, prove the list. The exit status is 1 if the synaptic events that it
counts are not the accumulates that `export.estimate` counts, and 2 if it could not run.

Shapes: `N` images, `T` time steps, `C` channels, `H` x `W` pixels, `E` connections.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

import zoo
from export.energy import EnergyReport, LayerStructure, TorchExecutor, estimate, find_devices
from export.nir.exporter import node_name
from zoo import hub
from zoo.cli.images import read_images
from zoo.cli.parser import positive
from zoo.danet import DANet
from zoo.errors import InputError, ZooError, one_line
from zoo.images import to_input
from zoo.neurons import Lif
from zoo.processor import processor

ROOT = Path(__file__).parent.parent
RUNNER = Path(__file__).with_name("sanafe_once.py")
PYTHON = ROOT / ".venv-sanafe" / "bin" / "python"
# Random weights on events, and trained weights on a still image.
NETWORKS = ["speck-danet8-t8.i2e-fmnist", "danet20-t4.fmnist"]
DEVICE = "loihi1"
CORES, CORE_NEURONS = 128, 1024  # of a chip; Davies et al., IEEE Micro 2018
MAX_CONNECTIONS = 4_000_000  # of a layer: SANA-FE needs about a kilobyte for each
PLACEMENTS = ("pixels", "channels")
NANO, PICO = 1e9, 1e-12

Array = np.ndarray


@dataclass(frozen=True)
class Pair:
    """A convolution that reads spikes of one source, and neurons that read nothing else."""

    conv: LayerStructure
    neurons: str  # the name of their layer
    lif: Lif


@dataclass(frozen=True)
class Account:
    """An account of what a layer does for all images, and costs for one, by one of the two."""

    synaptic_events: int
    updates: int  # of neurons that do more than idle
    synapses: float  # nanojoules an image
    neurons: float
    messages: float | None = None  # None where they are not counted

    @property
    def total(self) -> float:
        """The nanojoules of an image."""
        return self.synapses + self.neurons + (self.messages or 0.0)


@dataclass(frozen=True)
class Comparison:
    """A layer, its two accounts, and the spikes of its neurons."""

    layer: str
    connections: int
    ours: Account
    theirs: Account
    messages: int
    hops: int
    spikes: int  # of our neurons
    differing: int  # neurons and steps at which only one of the two fires
    left_out: tuple[str, ...]  # operations left out, as no source prices them on Loihi

    @property
    def is_equal(self) -> bool:
        """Whether both count the same synaptic events."""
        return self.ours.synaptic_events == self.theirs.synaptic_events


def load(name: str) -> DANet:
    """Return a trained network or a folder's; a name without weights has random ones."""
    if hub.is_location(name) or zoo.info(name).weights:
        return zoo.load(name)
    torch.manual_seed(0)
    return zoo.create(name).eval()


def pairs(model: DANet, layers: list[LayerStructure]) -> Iterator[Pair]:
    """Yield the convolutions of spikes that feed neurons directly, if they fit on one chip."""
    by_name = {layer.name: layer for layer in layers}
    lifs = {node_name(path): m for path, m in model.named_modules() if isinstance(m, Lif)}
    for conv in layers:
        if not isinstance(conv.node, nir.Conv2d) or len(conv.sources) != 1:
            continue
        source = by_name[conv.sources[0]]
        spikes = source.neuron or (isinstance(source.node, nir.Input) and conv.spikes_in)
        cores = math.ceil(conv.inputs / CORE_NEURONS) + math.ceil(conv.outputs / CORE_NEURONS)
        fits = cores <= CORES and conv.outputs * conv.node.weight[0].size <= MAX_CONNECTIONS
        readers = [n for n in lifs if by_name[n].sources == (conv.name,) and is_known(lifs[n])]
        if spikes and fits and readers:
            yield Pair(conv, readers[0], lifs[readers[0]])


def is_known(lif: Lif) -> bool:
    """Return whether SANA-FE's neurons of Loihi compute the same equation.

    They reset at once, and ours one step later: the same for a reset to zero, but a threshold that
    is taken off at once then leaks like the rest.
    """
    return lif.reset == "zero" or (lif.reset == "subtract" and float(lif.neuron.beta) == 1)


def connections(conv: LayerStructure) -> tuple[Array, Array, Array]:
    """Return source, target and weight `[E]` of every connection of a convolution.

    Elements are numbered in the order `[C, H, W]`. They are listed tap by tap from the weights and
    the shapes, and not by the fan-out that our counts are made of (`export.energy.counting`).
    """
    node = conv.node
    assert isinstance(node, nir.Conv2d)
    weight, groups = np.asarray(node.weight, np.float64), int(node.groups)
    outputs, inputs, *kernel = weight.shape
    strides, paddings, dilations = (
        np.broadcast_to(value, 2) for value in (node.stride, node.padding, node.dilation)
    )
    (_, height, width), (_, *out_size) = conv.in_shape, conv.out_shape
    listed = []
    for tap in np.ndindex(*kernel):
        axes = []
        for axis, size in enumerate((height, width)):
            to = np.arange(out_size[axis])
            at = to * strides[axis] - paddings[axis] + tap[axis] * dilations[axis]
            inside = (at >= 0) & (at < size)
            axes.append((at[inside], to[inside]))
        (rows, to_rows), (columns, to_columns) = axes
        target, source = np.nonzero(weight[:, :, *tap])
        channel = source + target // (outputs // groups) * inputs
        shape = (len(target), len(rows), len(columns))
        from_pixel = rows[:, None] * width + columns
        to_pixel = to_rows[:, None] * out_size[1] + to_columns
        listed.append(
            (
                (channel[:, None, None] * (height * width) + from_pixel).ravel(),
                (target[:, None, None] * (out_size[0] * out_size[1]) + to_pixel).ravel(),
                np.broadcast_to(weight[target, source, *tap][:, None, None], shape).ravel(),
            )
        )
    sources, targets, weights = (np.concatenate(parts) for parts in zip(*listed, strict=True))
    return sources, targets, weights


def positions(shape: tuple[int, ...], placement: str) -> Array:
    """Return the place of each element of `[C, H, W]` on the chip; 1,024 after another are a core.

    By `pixels`, all channels of a pixel lie side by side, so that a spike has few cores to reach;
    by `channels`, all pixels of a channel.
    """
    places = np.arange(math.prod(shape))
    if placement == "channels":
        return places
    channels, height, width = shape
    return places.reshape(height, width, channels).transpose(2, 0, 1).ravel()


def recording(pair: Pair, trains: dict[str, Tensor], placement: str) -> dict[str, Array]:
    """Return all that SANA-FE is told of a layer, as `sanafe_once.py` reads it.

    Raises `InputError` for inputs that hold more than one event at a step: its neurons fire once.
    """
    conv, neuron = pair.conv, pair.lif.neuron
    assert isinstance(conv.node, nir.Conv2d)
    train = trains[conv.sources[0]]  # [T, N, C, H, W]
    if int(train.max()) > 1:
        raise InputError(f"{conv.sources[0]!r} holds counts of events: zeros and ones are needed")
    sources, targets, weights = connections(conv)
    return {
        "sources": sources,
        "targets": targets,
        "weights": weights,
        "biases": np.repeat(conv.node.bias, math.prod(conv.out_shape[1:])),
        "spikes": train.transpose(0, 1).flatten(2).bool().numpy(),  # [N, T, C*H*W]
        "decay": np.array(float(neuron.beta)),
        "threshold": np.array(float(neuron.threshold)),
        "reset": np.array("hard" if pair.lif.reset == "zero" else "soft"),
        "input_positions": positions(conv.in_shape, placement),
        "neuron_positions": positions(conv.out_shape, placement),
    }


def simulate(layer: dict[str, Array], python: Path) -> dict[str, Any]:
    """Return the answer of `sanafe_once.py`. Raises `InputError` where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file, answer = Path(folder) / "layer.npz", Path(folder) / "answer.json"
        np.savez(file, allow_pickle=False, **layer)
        command = [python, RUNNER, file, answer]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            last = result.stderr.strip().rpartition("\n")[2]
            raise InputError(f"SANA-FE has failed: {last or f'status {result.returncode}'}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def our_account(report: EnergyReport, pair: Pair) -> tuple[Account, tuple[str, ...]]:
    """Return our account of a layer, and the operations that it leaves out."""
    device = find_devices([DEVICE])[DEVICE]
    names = [row.name for row in report.layers]
    conv, neurons = names.index(pair.conv.name), names.index(pair.neurons)
    by_layer = report.operations["exact"].by_layer
    nanojoules, left_out = [], []
    for layer in (conv, neurons):
        total = 0.0
        for operation, n in by_layer[layer].items():
            band = device.price(operation)
            if band and operation.kind != "add":  # which our device derives
                total += n * band.typ * PICO * NANO / report.images
            else:
                left_out.append(operation.kind)
        nanojoules.append(total)
    account = Account(
        synaptic_events=report.layers[conv].counts["acs"],
        updates=report.layers[neurons].counts["updates_with_input"],
        synapses=nanojoules[0],
        neurons=nanojoules[1],
    )
    return account, tuple(dict.fromkeys(left_out))


def their_account(images: list[dict[str, Any]]) -> Account:
    """Return SANA-FE's account of a layer."""

    def mean(part: str) -> float:
        return sum(NANO * float(image["joules"][part]) for image in images) / len(images)

    return Account(
        synaptic_events=sum(image["synaptic_events"] for image in images),
        updates=sum(image["updates"] for image in images),
        synapses=mean("synapses"),
        neurons=mean("neurons"),
        messages=mean("messages"),
    )


def differing_spikes(ours: Tensor, images: list[dict[str, Any]]) -> int:
    """Return at how many neurons and steps only one of two fires; `ours` is `[T, N, C, H, W]`."""
    theirs = torch.zeros_like(ours).transpose(0, 1).flatten(2)  # [N, T, C*H*W]
    for image, found in enumerate(images):
        for step, fired in enumerate(found["fired"]):
            theirs[image, step, fired] = 1
    return int((ours.transpose(0, 1).flatten(2) != theirs).sum())


def compare(
    name: str, *, layers: int, images: int, placement: str, python: Path
) -> tuple[str, list[Comparison]]:
    """Return what was run in words, and the comparison of the first `layers` layers.

    Raises `ZooError` for what cannot be loaded or run.
    """
    model = load(name)
    data, steps = model.known_origin.data, model.config.steps
    bundled = read_images([], data, steps, allow_drawings=True)
    x = to_input(bundled.pixels[:images], data)
    executor = TorchExecutor(model)
    chosen = list(pairs(model, executor.layers))[:layers]
    if not chosen:
        raise InputError(f"{name} has no convolution of spikes that feeds neurons alone and fits")
    executor.keep |= {n for pair in chosen for n in (pair.conv.sources[0], pair.neurons)}
    _, spikes = executor.run(x)
    report = estimate(model, x, device=DEVICE)
    compared: list[Comparison] = []
    found: dict[str, Any] = {}
    for pair in chosen:
        layer = recording(pair, spikes.trains, placement)
        found = simulate(layer, python)
        ours, left_out = our_account(report, pair)
        fired = spikes.trains[pair.neurons]
        compared.append(
            Comparison(
                layer=pair.conv.name,
                connections=len(layer["sources"]),
                ours=ours,
                theirs=their_account(found["images"]),
                messages=sum(image["messages"] for image in found["images"]),
                hops=sum(image["hops"] for image in found["images"]),
                spikes=int(fired.sum()),
                differing=differing_spikes(fired, found["images"]),
                left_out=left_out,
            )
        )
    source = executor.source
    what = f"{source.name}, {source.provenance} weights, T = {source.steps}"
    seen = f"the first {report.images} {bundled.source}"
    return f"{what}; {seen}; SANA-FE {found['version']}, placed by {placement}", compared


def print_tables(title: str, compared: list[Comparison]) -> None:
    """Print the counts of all images, and the energy of one, as tables in Markdown."""
    columns = (
        "layer, connections, synaptic events, by SANA-FE, spikes, that differ, updates, "
        "by SANA-FE, messages, hops"
    )
    print(f"\n{title}\n")
    _print_table(columns.split(", "), map(_counts, compared))
    columns = "nJ an image, by, synapses, neurons, messages, total, without a price"
    print()
    _print_table(columns.split(", "), (row for c in compared for row in _energies(c)))


def _counts(c: Comparison) -> list[str]:
    numbers = (
        *(c.connections, c.ours.synaptic_events, c.theirs.synaptic_events),
        *(c.spikes, c.differing, c.ours.updates, c.theirs.updates, c.messages, c.hops),
    )
    return [c.layer, *(f"{number:,}" for number in numbers)]


def _energies(c: Comparison) -> Iterator[list[str]]:
    for who, account in ((DEVICE, c.ours), ("SANA-FE", c.theirs)):
        parts = (account.synapses, account.neurons, account.messages, account.total)
        cells = ["" if part is None else f"{part:,.1f}" for part in parts]
        yield [c.layer, who, *cells, ", ".join(c.left_out) if account is c.ours else ""]


def _print_table(header: list[str], rows: Iterable[list[str]]) -> None:
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")


def main() -> int:
    """Compare the networks of the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    text = f"names or model folders (default: {' '.join(NETWORKS)})"
    parser.add_argument("networks", nargs="*", metavar="NAME_OR_FOLDER", help=text)
    text = "how many layers of each, the first that can be run (default: 2)"
    parser.add_argument("--layers", type=positive, default=2, metavar="N", help=text)
    text = "how many of the bundled images (default: 2)"
    parser.add_argument("--images", type=positive, default=2, metavar="N", help=text)
    text = "what lies side by side in a core: all channels of a pixel (default), or the reverse"
    parser.add_argument("--placement", choices=PLACEMENTS, default=PLACEMENTS[0], help=text)
    text = "the interpreter that has SANA-FE (default: that of .venv-sanafe)"
    parser.add_argument("--python", type=Path, default=PYTHON, metavar="PATH", help=text)
    args = parser.parse_args()
    if not args.python.is_file():
        parser.exit(2, f"{args.python} does not exist: run make .venv-sanafe/installed\n")
    torch.set_num_threads(1)
    print(processor())
    options = vars(args)
    networks, equal = options.pop("networks") or NETWORKS, True
    for name in networks:
        try:
            title, compared = compare(name, **options)
        except ZooError as error:
            parser.exit(2, f"{name}: {one_line(error)}\n")
        print_tables(title, compared)
        for c in compared:
            if not c.is_equal:
                print(f"{c.layer}: the synaptic events differ", file=sys.stderr)
                equal = False
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
