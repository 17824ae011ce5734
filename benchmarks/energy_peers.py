"""Operations counted here and by NeuroBench, SpikingJelly and syops-counter, layer by layer.

    python benchmarks/energy_peers.py [neurobench] [spikingjelly] [syops] [cost]
                                      [--batch N] [--rounds N] [--small]

Without a section it runs all of them. Every layer is given to a peer's own function with the input
that it has in the network that `zoo.from_nir` makes of the NIR graph: node for node what is counted
here. The unit is operations of two images; counts are exact, so nothing is repeated. `cost` times
a forward pass with and without counting: medians of interleaved rounds (`timing.py`). The exit
status is 1 if a count that has to be equal is not.
"""

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from neurobench.metrics.utils.layers import single_layer_MACs
from peers import syops_operations
from run import images as noise
from run import take_statistics
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from timing import compare, ratio, versions
from torch import Tensor, nn

import zoo
from export.energy import (
    Executor,
    LayerCounts,
    Spikes,
    TorchExecutor,
    Totals,
    count,
    read_structure,
    trains_needed,
)
from export.energy.conventions import CONVENTIONS
from export.energy.executors.onnx import OnnxExecutor
from export.energy.operations import Operation
from export.nir.exporter import node_name, to_nir
from export.onnx.exporter import to_onnx
from export.onnx.runtime import Runtime
from export.prepare.fold import folded_norms, still_image
from export.prepare.trace import Call, trace
from zoo.blocks import SamePool
from zoo.danet import DANet, Readout
from zoo.processor import processor

__all__ = ["NETWORKS", "Difference", "lively", "neurobench", "noise", "spikingjelly", "syops"]

NETWORKS = [
    "danet20-t4.fmnist",
    "danet20b-t4.fmnist",
    "danet20c-t4.fmnist",
    "danet20d-t4.fmnist",
    "danet18-t2.cifar10",
    "danet50c-t2.cifar10",
    "sew-resnet20-t4.fmnist",
    "sew-resnet20iand-t4.fmnist",
    "sew-resnet18-t2.in1k",
    "ms-resnet20-t4.fmnist",
    "spiking-resnet20-t4.fmnist",
    "speck-danet8-t4.fmnist",
]
KINDS = ("binary", "integer", "real")  # of a layer's input
LARGE, SMALL = "danet50-t4.in1k", "danet18-t4.cifar10"


@dataclass(frozen=True)
class WeightedLayer:
    """A layer with weights as it ran: our counts, its module, and its input `[T*B, ...]`."""

    row: LayerCounts
    module: nn.Conv2d | nn.Linear
    input: Tensor


@dataclass(frozen=True)
class Difference:
    """Operations of a layer for all images, as we and as a peer count them."""

    layer: str
    kind: str  # of its input, one of `KINDS`
    ours: int
    theirs: int

    @property
    def is_equal(self) -> bool:
        return self.ours == self.theirs


def lively(name: str, pruned: float = 0.0) -> DANet:
    """Return a trained network, or a random one in which every layer fires.

    It is random if there are no weights or some are to be pruned: a share `pruned` of them becomes
    zero.
    """
    torch.manual_seed(0)
    trained = is_trained(name) and not pruned
    model = zoo.load(name) if trained else zoo.create(name)
    if not trained:
        take_statistics(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= torch.rand_like(module.weight) >= pruned
    return model.eval()


def is_trained(name: str) -> bool:
    return zoo.info(name).weights is not None


@torch.no_grad()
def layers(model: DANet, images: Tensor) -> Iterator[WeightedLayer]:
    """Yield every convolution and linear layer of a network's graph, with its own input."""
    graph = to_nir(model, dialect="native")
    network, counted = zoo.from_nir(graph), read_structure(graph)
    modules = {name: network.nodes[key] for name, key in network.names.items()}
    inputs: dict[str, list[Tensor]] = {}
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            calls = inputs[name] = []
            module.register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0]))
    values = network.run(images.expand(model.config.steps, *images.shape))
    spikes, needed = Spikes(model.config.steps), trains_needed(counted)
    for layer in counted:
        if layer.neuron:
            train = values[layer.name].flatten(0, 1)
            spikes.add(layer.name, train, keep=layer.name in needed)
    for row in count(counted, spikes):
        weighted = modules.get(row.name)
        if isinstance(weighted, nn.Conv2d | nn.Linear):
            yield WeightedLayer(row, weighted, torch.cat(inputs[row.name]))


def neurobench(model: DANet, images: Tensor) -> Iterator[Difference]:
    """Compare with `single_layer_MACs`, which NeuroBench's `SynapticOperations` sums.

    It counts connections of inputs that are not zero, where an input of 2 counts once; in float64
    here, as its float32 sums are exact below 2^24 only. It computes the stem at every step. It
    would skip a real input that is zero: of noise, and of the weighted sums of spikes, none is.
    """
    for layer in layers(model, images):
        row, module = layer.row, copy.deepcopy(layer.module).double()
        theirs, _ = single_layer_MACs(layer.input.double(), module)
        dense = row.macs // row.runs * len(layer.input)
        ours = dense if row.input_kind == "real" else int(row.event_macs.sum())
        yield Difference(row.name, row.input_kind, ours, theirs)


@torch.no_grad()
def spikingjelly(model: DANet, images: Tensor) -> Iterator[Difference]:
    """Compare with SpikingJelly's `SynOpCounter`.

    It counts where the values of a batch are zeros and ones, and nothing where they are integers
    or real currents. It counts a weight that is zero like any other, so the few such weights of
    trained networks are set close to zero. Under `inference_mode` all its counts would be zero.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight[module.weight == 0] = 1e-6
    for layer in layers(model, images):
        row, counter = layer.row, SynOpCounter()
        with DispatchCounterMode([counter]):
            layer.module(layer.input)
        is_counted = bool(((layer.input == 0) | (layer.input == 1)).all())
        ours = int(row.acs.sum()) if is_counted else 0
        yield Difference(row.name, row.input_kind, ours, counter.get_total())


@torch.no_grad()
def syops(model: DANet, images: Tensor) -> Iterator[tuple[Difference, Difference]]:
    """Compare our convention `syops` with syops-counter: AC and MAC of every row of either.

    syops-counter runs the model, not the graph, an image at a time. Its share of ones is a float32,
    so AC that differ by no more than a float32 can resolve are taken as equal. What a still image
    alone decides behind the stem, the model computes at every step and we count once.
    """
    executor, steps = TorchExecutor(model), model.config.steps
    rows = count(executor.layers, executor.run(images)[1])
    calls = trace(model, still_image(model))
    row_of = _rows(calls)
    for i in range(len(images)):
        theirs: dict[str, list[float]] = {}
        for path, operations in syops_operations(model, images[i : i + 1]).items():
            total = theirs.setdefault(row_of[path], [0.0, 0.0])
            total[:] = [before + n for before, n in zip(total, operations, strict=True)]
        for row in rows:
            acs, macs = (n / _repeats(row, steps) for n in theirs.pop(row.name, (0.0, 0.0)))
            ours = CONVENTIONS["syops"].operations(row, steps)
            our_acs, our_macs = (
                int(ours[kind][i]) if kind in ours else 0 for kind in map(Operation, ("ac", "mac"))
            )
            if abs(our_acs - acs) <= 1 + acs * 2**-23:
                acs = our_acs
            yield (
                Difference(row.name, row.input_kind, our_acs, round(acs)),
                Difference(row.name, row.input_kind, our_macs, round(macs)),
            )
        assert not theirs, theirs


def _repeats(row: LayerCounts, steps: int) -> int:
    """Return how often the model computes what we count once."""
    is_still = row.runs == 1 and row.kind != "neuron" and not row.name.startswith("stem")
    return steps if is_still else 1


def _rows(calls: list[Call]) -> dict[str, str]:
    """Return the row that counts each module: a BatchNorm or pool is in that of a convolution."""
    rows = {call.path: node_name(call.path) for call in calls}
    rows |= {norm: node_name(conv) for norm, conv in folded_norms(calls).items()}
    for call in calls:
        if isinstance(call.module, nn.MaxPool2d | Readout):
            rows[call.path] += "_share" if isinstance(call.module, nn.MaxPool2d) else "_pool"
        elif isinstance(call.module, SamePool):
            readers = (reader for reader in calls if call.path in reader.inputs)
            rows[call.path] = node_name(next(readers).path)
    return rows


def agreement(
    title: str, compared: Callable[[DANet, Tensor], Iterator[Difference]], pruned: float = 0.0
) -> bool:
    """Print a line for every network, and return whether all counts agree.

    A line holds how many layers are compared, by the kind of their input.
    """
    columns = "".join(f"{kind:>9}" for kind in KINDS)
    print(f"\n{title}\n  {'network':36}{columns}{'operations':>16}{'different':>11}")
    equal = True
    for name in NETWORKS:
        model = lively(name, pruned)
        rows = list(compared(model, noise(model, 2)))
        unequal = [row for row in rows if not row.is_equal]
        counts = "".join(f"{_layers(rows, kind):>9}" for kind in KINDS)
        label = name + ", trained" * (is_trained(name) and not pruned)
        print(f"  {label:36}{counts}{sum(row.theirs for row in rows):16,d}{len(unequal):11d}")
        for row in unequal:
            print(f"    {row}")
        equal &= bool(rows) and not unequal
    return equal


def _layers(rows: list[Difference], kind: str) -> str:
    """Return how many layers of that kind a peer counts, or `-` for none."""
    number = sum(1 for row in rows if row.kind == kind and (row.ours or row.theirs))
    return f"{number}" if number else "-"


def estimates() -> bool:
    """Print how far syops-counter is from the exact count of layers that read zeros and ones.

    Returns whether our convention of its name counts every row as it does.
    """
    print("\nsyops-counter 0.0.5, run on the models: an estimate from the mean rate")
    columns = f"{'AC':>16}{'MAC':>16}{'different':>11}{'off the exact count':>23}"
    print(f"  {'network':36}{'rows':>9}{columns}")
    equal = True
    for name in NETWORKS:
        model = lively(name)
        pairs = list(syops(model, noise(model, 2)))
        unequal = [row for pair in pairs for row in pair if not row.is_equal]
        acs, macs = (sum(row.theirs for row in rows) for rows in zip(*pairs, strict=True))
        errors = _relative_errors(model)
        spread = f"{min(errors):+.1%} to {max(errors):+.1%}"
        counts = f"{len(pairs) // 2:9d}{acs:16,d}{macs:16,d}{len(unequal):11d}"
        print(f"  {name:36}{counts}{spread:>23}")
        for row in unequal:
            print(f"    {row}")
        equal &= bool(pairs) and not unequal
    return equal


def _relative_errors(model: DANet) -> list[float]:
    """Return by how much the estimate from the mean rate is off the exact count.

    There is an entry for every convolution and linear layer that reads zeros and ones.
    """
    steps = model.config.steps
    errors = []
    for layer in layers(model, noise(model, 2)):
        if layer.row.input_kind == "binary" and layer.row.acs.any():
            estimate, exact = (
                int(CONVENTIONS[name].operations(layer.row, steps)[Operation("ac")].sum())
                for name in ("sew", "exact")
            )
            errors.append(estimate / exact - 1)
    return errors


def cost(name: str, batch: int, rounds: int) -> None:
    """Print the time of a forward pass and of the same counted, here and by the peers."""
    from peers import NeuroBench

    model = lively(name)
    plain, counting, bench = (
        copy.deepcopy(model),
        TorchExecutor(model),
        NeuroBench(copy.deepcopy(model)),
    )
    x, runtime = noise(model, batch), Runtime(threads=1)
    images = {"images": x.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(to_onnx(model), path)
        exported, onnx_counting = runtime.load(path), OnnxExecutor(path, runtime)
        proto = onnx.load(path)
        del proto.graph.output[1:]
        logits = runtime.load(proto.SerializeToString())
        calls: dict[str, Callable[[], object]] = {
            "torch, forward": lambda: plain(x),
            "torch, counted": lambda: run_counted(counting, x),
            "torch, counted by NeuroBench": lambda: bench.run(x),
            "torch, counted by SpikingJelly": lambda: _run_counted_by_spikingjelly(plain, x),
            "onnxruntime, logits alone": lambda: logits.run(None, images),
            "onnxruntime, the file with its spike counts": lambda: exported.run(None, images),
            "onnxruntime, counted": lambda: run_counted(onnx_counting, x),
        }
        with torch.inference_mode():
            times = compare(f"{name}, batch {batch}, one thread", calls, rounds)
    forward, ours, by_neurobench, by_spikingjelly, bare, file, onnx_ours = times.values()
    for title, longer, shorter in (
        ("torch", ours, forward),
        ("torch, NeuroBench's", by_neurobench, forward),
        ("torch, SpikingJelly's", by_spikingjelly, forward),
        ("the file in onnxruntime", onnx_ours, file),
        ("its logits alone", onnx_ours, bare),
    ):
        print(f"  counting on top of {title}: {ratio(longer, shorter).overhead}")


def run_counted(executor: Executor, x: Tensor) -> Totals:
    """Run and count a batch as `estimate` does."""
    _, spikes = executor.run(x)
    totals = Totals(executor.source.steps)
    fired = {name: spikes.pixels[name].sum((1, 2, 3)) for name in executor.neurons}
    totals.add(count(executor.layers, spikes), fired)
    return totals


def _run_counted_by_spikingjelly(model: DANet, x: Tensor) -> int:
    counter = SynOpCounter()
    with torch.inference_mode(False), torch.no_grad(), DispatchCounterMode([counter]):
        model(x.clone())
    total: int = counter.get_total()
    return total


def main() -> int:
    """Run the sections of the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    sections = ("neurobench", "spikingjelly", "syops", "cost")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(sections)} (default: all)"
    )
    parser.add_argument(
        "--batch", type=int, default=1, help="images of the section cost (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="a small network in the section cost")
    args = parser.parse_args()
    if unknown := set(args.sections) - set(sections):
        parser.error(f"unknown section {min(unknown)}; valid are {', '.join(sections)}")
    torch.set_num_threads(1)
    print(f"{processor()}; {versions()}")
    chosen, equal = args.sections or sections, True
    if "neurobench" in chosen:
        equal &= agreement("NeuroBench, SynapticOperations", neurobench)
        equal &= agreement("NeuroBench, half of the weights zero", neurobench, pruned=0.5)
    if "spikingjelly" in chosen:
        equal &= agreement("SpikingJelly, SynOpCounter (-: it counts nothing)", spikingjelly)
    if "syops" in chosen:
        equal &= estimates()
    if "cost" in chosen:
        cost(SMALL if args.small else LARGE, args.batch, args.rounds)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
