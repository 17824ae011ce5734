"""Operation counts beside those of NeuroBench, SpikingJelly and syops, layer by layer, and what
counting costs.

    python benchmarks/energy_peers.py [neurobench] [spikingjelly] [syops] [cost] [--batch N] [--rounds N] [--small]

Without a section it runs all of them. Every layer is given to a peer's own function with the input
that it has in the network that `zoo.from_nir` makes of the NIR graph: node for node what is counted
here. Exit status 1 if a count that has to be equal is not.
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

NETWORKS = [
    "danet20-t4.fmnist", "danet20b-t4.fmnist", "danet20c-t4.fmnist", "danet20d-t4.fmnist",
    "danet18-t2.cifar10", "danet50c-t2.cifar10", "sew-resnet20-t4.fmnist", "sew-resnet20iand-t4.fmnist",
    "sew-resnet18-t2.in1k", "ms-resnet20-t4.fmnist", "spiking-resnet20-t4.fmnist", "speck-danet8-t4.fmnist",
]  # fmt: skip
KINDS = ("binary", "integer", "real")  # of a layer's input
LARGE, SMALL = "danet50-t4.in1k", "danet18-t4.cifar10"


@dataclass(frozen=True)
class Seen:
    """A layer with weights, as it ran: what is counted here, its module, and its input `[T*B,
    ...]`.
    """

    row: LayerCounts
    module: nn.Conv2d | nn.Linear
    input: Tensor


@dataclass(frozen=True)
class Difference:
    """Of one layer: operations of all images."""

    layer: str
    kind: str
    ours: int
    theirs: int


def lively(name: str, pruned: float = 0.0) -> DANet:
    """Trained, if there are weights; else random, with the BatchNorm statistics of a batch of
    noise, so that every layer spikes.

    `pruned`, a share of all weights, of random ones, are zero.
    """
    torch.manual_seed(0)
    model = zoo.load(name) if is_trained(name) and not pruned else zoo.create(name)
    if not is_trained(name) or pruned:
        for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(noise(model, 2))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= torch.rand_like(module.weight) >= pruned
    return model.eval()


def is_trained(name: str) -> bool:
    return zoo.info(name).weights is not None


def noise(model: DANet, batch: int) -> Tensor:
    assert model.origin is not None
    data = model.origin.data
    return torch.randn(
        batch, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(1)
    )


@torch.no_grad()
def layers(model: DANet, images: Tensor) -> Iterator[Seen]:
    """Every convolution and matrix of a network's graph, with its own input."""
    graph = to_nir(model, profile="native")
    network, counted = zoo.from_nir(graph), read_structure(graph)
    modules = {name: network.nodes[key] for name, key in network.names.items()}
    inputs: dict[str, list[Tensor]] = {
        name: [] for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    for name, calls in inputs.items():
        modules[name].register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0]))
    values = network.run(images.expand(model.config.steps, *images.shape))
    spikes, keep = Spikes(model.config.steps), trains_needed(counted)
    for layer in counted:
        if layer.neuron:
            spikes.add(layer.name, values[layer.name].flatten(0, 1), keep=layer.name in keep)
    for row in count(counted, spikes):
        module = modules.get(row.name)
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield Seen(row, module, torch.cat(inputs[row.name]))


def neurobench(model: DANet, images: Tensor) -> Iterator[Difference]:
    """`SynapticOperations` sums `single_layer_MACs`: connections of inputs that are not zero, an
    input of 2 counting once.

    In float64 here, as its float32 sums are exact below 2^24 only. It computes the stem at every
    step. It would skip a real input that is zero: of noise, and of the weighted sums of spikes,
    none is.
    """
    for seen in layers(model, images):
        row = seen.row
        theirs, _ = single_layer_MACs(seen.input.double(), copy.deepcopy(seen.module).double())
        dense = row.macs // row.runs * len(seen.input)
        yield Difference(
            row.name,
            row.input_kind,
            dense if row.input_kind == "real" else int(row.event_macs.sum()),
            theirs,
        )


@torch.no_grad()
def spikingjelly(model: DANet, images: Tensor) -> Iterator[Difference]:
    """`SynOpCounter` counts where the values of a batch are zeros and ones, and nothing elsewhere:
    integers, real currents.

    A weight that is zero it counts like any other, so the few of trained ones are made as good as
    zero. Under `inference_mode` all its counts would be zero.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight[module.weight == 0] = 1e-6
    for seen in layers(model, images):
        row, counter = seen.row, SynOpCounter()
        with DispatchCounterMode([counter]):
            seen.module(seen.input)
        known = bool(((seen.input == 0) | (seen.input == 1)).all())
        yield Difference(
            row.name, row.input_kind, int(row.acs.sum()) if known else 0, counter.get_total()
        )


@torch.no_grad()
def syops(model: DANet, images: Tensor) -> Iterator[tuple[Difference, Difference]]:
    """Our convention `syops` against syops-counter itself, which runs the model, not the graph, an
    image at a time: AC and MAC of every row that either counts.

    Its share of ones is a float32, which is made up for here: AC are rounded to what a float32 can
    tell apart. What a still image alone decides behind the stem, the model computes at every step
    and we count once.
    """
    run, steps = TorchExecutor(model), model.config.steps
    rows = count(run.layers, run.run(images)[1])
    calls = trace(model, still_image(model))
    row_of = _rows(calls)
    for i in range(len(images)):
        theirs: dict[str, list[float]] = {}
        for path, counted in syops_operations(model, images[i : i + 1]).items():
            total = theirs.setdefault(row_of[path], [0.0, 0.0])
            total[:] = [before + n for before, n in zip(total, counted, strict=True)]
        for row in rows:
            ours = CONVENTIONS["syops"].operations(row, steps)
            again = (
                steps
                if row.runs == 1 and not row.name.startswith("stem") and row.kind != "neuron"
                else 1
            )
            acs, macs = (n / again for n in theirs.pop(row.name, (0.0, 0.0)))
            mine = [
                int(ours[Operation(kind)][i]) if Operation(kind) in ours else 0
                for kind in ("ac", "mac")
            ]
            same = abs(mine[0] - acs) <= 1 + acs * 2**-23
            yield (
                Difference(row.name, row.input_kind, mine[0], mine[0] if same else round(acs)),
                Difference(row.name, row.input_kind, mine[1], round(macs)),
            )
        assert not theirs, theirs


def _rows(calls: list[Call]) -> dict[str, str]:
    """Module -> the row that counts it: BatchNorms and pools with the convolution that takes them
    in.
    """
    found = {call.path: node_name(call.path) for call in calls}
    found |= {norm: node_name(conv) for norm, conv in folded_norms(calls).items()}
    for call in calls:
        if isinstance(call.module, nn.MaxPool2d | Readout):
            found[call.path] += "_share" if isinstance(call.module, nn.MaxPool2d) else "_pool"
        elif isinstance(call.module, SamePool):
            found[call.path] = next(
                node_name(reader.path) for reader in calls if call.path in reader.inputs
            )
    return found


def agreement(
    title: str, compared: Callable[[DANet, Tensor], Iterator[Difference]], pruned: float = 0.0
) -> bool:
    """Print a line for every network, and its layers by the kind of their input; whether all of
    them agree.
    """
    columns = "".join(f"{kind:>9}" for kind in KINDS)
    print(f"\n{title}\n  {'network':36}{columns}{'operations':>16}{'different':>11}")
    equal = True
    for name in NETWORKS:
        model = lively(name, pruned)
        found = list(compared(model, noise(model, 2)))
        odd = [d for d in found if d.ours != d.theirs]
        counts = "".join(f"{_layers(found, kind):>9}" for kind in KINDS)
        label = name + ", trained" * (is_trained(name) and not pruned)
        print(f"  {label:36}{counts}{sum(d.theirs for d in found):16,d}{len(odd):11d}")
        for difference in odd:
            print(f"    {difference}")
        equal &= bool(found) and not odd
    return equal


def _layers(found: list[Difference], kind: str) -> str:
    """How many layers of that kind a peer counts, `-` for those of which it counts nothing."""
    ours = [d for d in found if d.kind == kind]
    known = sum(1 for d in ours if d.ours or d.theirs)
    return f"{known}" if known else "-"


def estimates() -> bool:
    """Print how far syops-counter is from the exact count of layers that read zeros and ones;
    whether our convention says the same as it of every row.
    """
    print("\nsyops-counter 0.0.5, run on the models: an estimate from the mean rate")
    print(
        f"  {'network':36}{'rows':>9}{'AC':>16}{'MAC':>16}{'different':>11}{'off the exact count':>23}"
    )
    equal = True
    for name in NETWORKS:
        model = lively(name)
        found = list(syops(model, noise(model, 2)))
        odd = [d for pair in found for d in pair if d.ours != d.theirs]
        acs, macs = (sum(d.theirs for d in kind) for kind in zip(*found, strict=True))
        off = _off(model)
        print(
            f"  {name:36}{len(found) // 2:9d}{acs:16,d}{macs:16,d}{len(odd):11d}{f'{min(off):+.1%} to {max(off):+.1%}':>23}"
        )
        for difference in odd:
            print(f"    {difference}")
        equal &= bool(found) and not odd
    return equal


def _off(model: DANet) -> list[float]:
    """Divide the estimate from the mean rate by the exact count, for every convolution and matrix
    that reads zeros and ones.
    """
    rows = [seen.row for seen in layers(model, noise(model, 2)) if seen.row.input_kind == "binary"]
    rate, exact = (CONVENTIONS[name] for name in ("sew", "exact"))
    counts = [
        [int(c.operations(row, model.config.steps)[Operation("ac")].sum()) for c in (rate, exact)]
        for row in rows
        if row.acs.any()
    ]
    return [estimate / count - 1 for estimate, count in counts]


def cost(name: str, batch: int, rounds: int) -> None:
    """Counting on top of a forward pass, in torch and in onnxruntime, beside that of the peers."""
    from peers import NeuroBench

    model = lively(name)
    x, bench = noise(model, batch), NeuroBench(copy.deepcopy(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(to_onnx(model), path)
        proto = onnx.load(path)
        del proto.graph.output[1:]
        logits = Runtime(threads=1).load(proto.SerializeToString())
        exported, counting, onnxed = (
            Runtime(threads=1).load(path),
            TorchExecutor(model),
            OnnxExecutor(path, Runtime(threads=1)),
        )
        plain = copy.deepcopy(model)
        calls: dict[str, Callable[[], object]] = {
            "torch, forward": lambda: plain(x),
            "torch, counted": lambda: counted(counting, x),
            "torch, counted by NeuroBench": lambda: bench.run(x),
            "torch, counted by SpikingJelly": lambda: _counted_by_spikingjelly(plain, x),
            "onnxruntime, logits alone": lambda: logits.run(None, {"images": x.numpy()}),
            "onnxruntime, the file with its spike counts": lambda: exported.run(
                None, {"images": x.numpy()}
            ),
            "onnxruntime, counted": lambda: counted(onnxed, x),
        }
        with torch.inference_mode():
            times = compare(f"{name}, batch {batch}, one thread", calls, rounds)
    forward, counts, bench_counts, jelly, bare, file, run = (times[key] for key in calls)
    for title, longer, shorter in (
        ("torch", counts, forward),
        ("torch, NeuroBench's", bench_counts, forward),
        ("torch, SpikingJelly's", jelly, forward),
        ("the file in onnxruntime", run, file),
        ("its logits alone", run, bare),
    ):
        print(f"  counting on top of {title}: {ratio(longer, shorter).overhead}")


def counted(run: Executor, x: Tensor) -> Totals:
    """What `estimate` does with a batch."""
    _, spikes = run.run(x)
    totals = Totals(run.source.steps)
    totals.add(
        count(run.layers, spikes),
        {name: spikes.pixels[name].sum((1, 2, 3)) for name in run.neurons},
    )
    return totals


def _counted_by_spikingjelly(model: DANet, x: Tensor) -> int:
    counter = SynOpCounter()
    with torch.inference_mode(False), torch.no_grad(), DispatchCounterMode([counter]):
        model(x.clone())
    total: int = counter.get_total()
    return total


def main() -> int:
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
