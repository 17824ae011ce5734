"""Side-by-side measurements of training: seconds and memory of an optimiser step, and what the recipes cost.

    python benchmarks/training.py [cpu] [gpu] [cost] [--batch N] [--rounds N] [--save] [--small]

Without a section it runs all of them; without a GPU the rows of `gpu` say so. README.md says what is measured and how.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from run import Row, images, network
from timing import Ratio, Times, compare, ratio, versions
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from train_once import batch_of, network_of, training_step

import zoo
from zoo.names import ModelSpec
from zoo.neurons import Lif
from zoo.processor import processor
from zoo.training.config import Recipe

STEPS = 4
RESULTS = Path(__file__).with_name("results")
NOT_RUN = "not run on a GPU yet"
LONG = {"fp32": "float32", "bf16": "bfloat16"}
TITLES = {"ours": "ours", "loop": "snnTorch loop", "spikingjelly": "SpikingJelly"}
IMAGES = {"in1k": 1_281_167, "tin200": 100_000, "cifar10": 50_000, "fmnist": 60_000, "nmnist": 60_000, "dvsgesture": 1_077}
PRICED = (
    *(f"danet{depth}-t4.in1k" for depth in (18, 34, 50, 101, 152)),
    "danet18-t4.tin200", "danet18-t4.cifar10", "danet20-t4.fmnist", "danet20-t10.nmnist", "danet18-t16.dvsgesture",
)  # fmt: skip
FILLS_A_GPU = 224  # pixels: the layers of smaller images do not, and stay far below any share of the peak that large ones reach


@dataclass(frozen=True)
class Result(Row):
    """A line of the table, and the numbers that it was made of."""

    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """Which networks are trained, and how often."""

    cpu: str
    cpu_batch: int
    depths: tuple[int, ...]  # on a GPU, at 224 pixels
    gpu_batch: int  # halved until every contender fits
    images: int  # of the neuron's tensor on a GPU, [4, images, 256, 64, 64]
    rounds: int
    priced: tuple[str, ...]


FULL = Scale("danet18-t4.cifar10", 64, (18, 50), 64, images=64, rounds=7, priced=PRICED)
SMOKE = Scale("danet20-t2.fmnist", 4, (18,), 4, images=4, rounds=1, priced=("danet20-t4.fmnist",))


@dataclass
class Session:
    """What the sections are asked for, and what they find beside their rows."""

    scale: Scale
    rounds: int
    batch: int | None
    flops: float  # floating-point operations a second that `cost` reckons with
    throughput: list[dict[str, Any]] = field(default_factory=list)


# --- on the CPU -------------------------------------------------------------------------------------------------------------------


def cpu(session: Session) -> list[Result]:
    """A step of a small ResNet, in one process; then the peak of memory, each contender in a process of its own."""
    from loop import assert_same

    name, batch = session.scale.cpu, session.batch or session.scale.cpu_batch
    model = network(name)
    assert_same(model, images(model, 2))
    assert_neuron("cpu")
    x, labels = batch_of(name, batch)
    pairs = [(how, precision) for precision in LONG for how in ("loop", "ours")]
    calls = {_called(*pair): training_step(network_of(name, pair[0]), x, labels, precision=pair[1]) for pair in pairs}
    times = compare(f"{name}, a training step of {batch} images, one thread", calls, session.rounds)
    session.throughput += [
        {"network": name, "batch": batch, "precision": precision, "images_per_second": batch / median(times[_called(*pair)].wall),
         "where": f"one core of {processor()}"}
        for pair in pairs if pair[0] == "ours" for precision in pair[1:]
    ]  # fmt: skip

    print("\npeak memory of the process, and above libraries, weights and batch")
    used = {pair: train_once(name, pair[0], batch, pair[1], "cpu") for pair in pairs}
    for pair, once in used.items():
        print(f"  {_called(*pair):42} {once['peak'] / 1e9:8.2f} GB {_above(once) / 1e9:8.2f} GB above")

    work = f"training step of {name}, batch {batch}"
    rows = []
    targets = {("fp32", "fp32"): ("0.65x", "0.40x"), ("bf16", "bf16"): ("0.40x", "0.30x"), ("bf16", "fp32"): ("", "")}
    for (mine, other), (time, memory) in targets.items():
        what = f"{work}, {LONG[mine]}, against the snnTorch loop in {LONG[other]}"
        ours, loop = ("ours", mine), ("loop", other)
        rows += [
            _time_row(f"{what}: time", time, times[_called(*ours)], times[_called(*loop)]),
            _memory_row(f"{what}: peak memory", memory, used[ours], used[loop]),
        ]
    return rows


def _called(how: str, precision: str) -> str:
    return f"{TITLES[how]}, {LONG[precision]}"


def _time_row(work: str, target: str, ours: Times, other: Times) -> Result:
    against = ratio(ours, other)
    return Result(
        work,
        target,
        f"{against}; {ours.milliseconds:.0f} against {other.milliseconds:.0f} ms",
        {"ratio": asdict(against), "ours": asdict(ours), "other": asdict(other)},
    )


def _memory_row(work: str, target: str, ours: dict[str, float], other: dict[str, float]) -> Result:
    whole, above = ours["peak"] / other["peak"], _above(ours) / _above(other)
    return Result(
        work,
        target,
        f"{whole:.2f}x; {ours['peak'] / 1e9:.2f} against {other['peak'] / 1e9:.2f} GB; above libraries, weights and batch "
        f"{above:.2f}x; {_above(ours) / 1e9:.2f} against {_above(other) / 1e9:.2f} GB",
        {"ratio": whole, "ratio_above_baseline": above, "ours": ours, "other": other},
    )


def _above(once: Mapping[str, float]) -> float:
    return once["peak"] - once["baseline"]


def train_once(
    name: str,
    how: str,
    batch: int,
    precision: str,
    device: str,
    *flags: str,
    steps: int = 1,
    choice: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """What train_once.py prints. `choice`: variables of its environment. Raises `RuntimeError` with the last of its errors."""
    script = Path(__file__).with_name("train_once.py")
    arguments = ["--how", how, "--batch", str(batch), "--precision", precision, "--device", device, "--steps", str(steps), *flags]
    environment = os.environ | dict(choice or {})
    done = subprocess.run([sys.executable, script, name, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def assert_neuron(device: str) -> None:
    """Raises `AssertionError` unless the fused neuron, in float32, fires as snnTorch's own loop does and has its gradient."""
    random = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(STEPS * 8, 16, 7, 7, generator=random).to(device) for _ in range(2))
    found = []
    for fused in (True, False):
        leaf = x.clone().requires_grad_()
        spikes = Lif(STEPS, fused=fused).to(device).train()(leaf)
        (gradient,) = torch.autograd.grad(spikes, leaf, grad)
        found.append((spikes, gradient))
    (fused_spikes, fused_grad), (spikes, gradient) = found
    assert torch.equal(fused_spikes, spikes) and spikes.any(), "the fused neuron fires otherwise than snnTorch's"
    error = float((fused_grad - gradient).norm() / gradient.norm())
    assert error < 1e-5, f"the fused neuron's gradient differs from snnTorch's by {error:.2g}"


# --- on a GPU ---------------------------------------------------------------------------------------------------------------------


def gpu(session: Session) -> list[Result]:
    """Steps of large ResNets beside SpikingJelly's and the loop, and the neuron alone beside a copy."""
    depths = session.scale.depths
    if not torch.cuda.is_available():
        print(f"\ngpu: {NOT_RUN}")
        return [Result(work, target, NOT_RUN) for d in depths for work, target in _gpu_works(d)] + [
            Result(work, target, NOT_RUN) for work, target in _neuron_works()
        ]
    from loop import assert_same
    from peers import SPIKINGJELLY_CHOICE

    print(f"\n{torch.cuda.get_device_name()}; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    assert_neuron("cuda")
    model = network(session.scale.cpu).cuda()
    assert_same(model, images(model, 2).cuda())
    del model
    choice, flags = _fastest_spikingjelly(f"danet{depths[0]}-t{STEPS}.in1k", session.scale.gpu_batch)
    os.environ[SPIKINGJELLY_CHOICE] = choice  # read when spikingjelly is imported, which only happens below
    rows = [row for depth in depths for row in _depth(depth, session, f"{choice}{', channels_last' if flags else ''}", flags)]
    return rows + _neuron(session)


def _gpu_works(depth: int) -> list[tuple[str, str]]:
    """Work and target of each row."""
    work, peer = f"training of danet{depth}-t{STEPS}, 224x224, bfloat16", f"SpikingJelly sew_resnet{depth}"
    return [
        (f"{work}, against {peer}: images/s", "1.3x"),
        (f"{work}, against {peer}: peak memory", "0.60x"),
        (f"{work}, against the snnTorch loop: images/s", "6x"),
    ]


def _neuron_works() -> list[tuple[str, str]]:
    work = "the fused neuron, T = 4, bfloat16, bytes/s as a share of a copy's"
    return [(f"{work}: forward", "80 %"), (f"{work}: forward and backward", "80 %")]


def _fastest_spikingjelly(name: str, batch: int) -> tuple[str, list[str]]:
    """Of its implementations of the neuron, with either memory format of the weights, what trains `name` fastest here."""
    from peers import SPIKINGJELLY_CHOICE, SPIKINGJELLY_IMPLEMENTATIONS

    print(f"\nSpikingJelly's implementations, {name}, bfloat16, each in a process of its own")
    seconds: dict[tuple[str, str], float] = {}
    for choice in SPIKINGJELLY_IMPLEMENTATIONS:
        chosen = {SPIKINGJELLY_CHOICE: choice}
        for flag in ("", "--channels-last"):
            title = f"{choice}{', channels_last' if flag else ''}"
            size = batch
            while size:
                try:
                    flags = [flag] if flag else []
                    once = train_once(name, "spikingjelly", size, "bf16", "cuda", *flags, steps=5, choice=chosen)
                    seconds[choice, flag] = once["seconds"] / size
                    print(f"  {title:42} {size / once['seconds']:9.1f} images/s, batch {size}")
                except RuntimeError as error:
                    if "out of memory" in str(error):
                        size //= 2
                        continue
                    print(f"  {title:42} does not run: {str(error)[:120]}")
                break
    if not seconds:
        raise RuntimeError("SpikingJelly does not train on this GPU")
    choice, flag = min(seconds, key=lambda key: seconds[key])
    return choice, [flag] if flag else []


def _depth(depth: int, session: Session, peer: str, flags: list[str]) -> list[Result]:
    name = f"danet{depth}-t{STEPS}.in1k"
    batch = session.batch or session.scale.gpu_batch
    calls = _fitting(name, batch, flags)
    while calls is None and batch > 1:  # outside of the handler of the error, which holds on to all that filled the memory
        batch //= 2
        calls = _fitting(name, batch, flags)
    assert calls is not None, f"one image of {name} is too much for this GPU"
    times = _turns(f"{name}, bfloat16, batch {batch}, SpikingJelly: {peer}", calls, batch, session.rounds)
    session.throughput.append(
        {"network": name, "batch": batch, "precision": "bf16", "images_per_second": batch / median(times["ours"]),
         "where": torch.cuda.get_device_name()}
    )  # fmt: skip
    calls.clear()
    gc.collect()
    torch.cuda.empty_cache()

    rows = []
    used = {how: train_once(name, how, batch, "bf16", "cuda", *(flags if how == "spikingjelly" else [])) for how in TITLES}
    for how, once in used.items():
        print(f"  {TITLES[how]:42} {once['peak'] / 1e9:8.2f} GB peak {_above(once) / 1e9:8.2f} GB above weights and batch")
    faster, smaller, much_faster = _gpu_works(depth)
    for (work, target), how in ((faster, "spikingjelly"), (much_faster, "loop")):
        against = _against(times[how], times["ours"])
        speeds = " against ".join(f"{batch / median(times[who]):.0f}" for who in ("ours", how))
        figures = {"ratio": asdict(against), "batch": batch, "seconds": {who: times[who] for who in ("ours", how)}, "peer": peer}
        rows.append(Result(work, target, f"{against}; {speeds} images/s, batch {batch}", figures))
    rows.insert(1, _memory_row(*smaller, used["ours"], used["spikingjelly"]))
    return rows


def _fitting(name: str, batch: int, flags: list[str]) -> dict[str, Callable[[], Tensor]] | None:
    """A step of every contender, or nothing if one of them runs out of memory."""
    gc.collect()
    torch.cuda.empty_cache()
    x, labels = batch_of(name, batch, "cuda")
    calls: dict[str, Callable[[], Tensor]] = {}
    try:
        for how in TITLES:
            last = True if how == "spikingjelly" and flags else None
            calls[how] = training_step(network_of(name, how, "cuda", channels_last=last), x, labels, precision="bf16")
            assert calls[how]().isfinite(), f"{how}: the loss is not finite"
            torch.cuda.empty_cache()
    except torch.OutOfMemoryError:
        print(f"  batch {batch} does not fit: {TITLES[how]}")
        return None
    return calls


def _turns(
    title: str, calls: Mapping[str, Callable[[], object]], batch: int, rounds: int, steps: int = 5
) -> dict[str, tuple[float, ...]]:
    """Seconds of a step, by the GPU's own clock: in every turn two steps that do not count, then the mean of `steps`."""
    seconds: dict[str, list[float]] = {how: [] for how in calls}
    for _ in range(rounds):
        for how, call in calls.items():
            torch.cuda.empty_cache()  # what the one before keeps for itself; the first step takes its own
            call()
            call()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(steps):
                call()
            end.record()
            end.synchronize()
            seconds[how].append(start.elapsed_time(end) / 1000 / steps)
    print(f"\n{title}: medians of {rounds} interleaved rounds of {steps} steps")
    for how, turns in seconds.items():
        print(f"  {TITLES[how]:42} {1000 * median(turns):9.1f} ms {batch / median(turns):9.1f} images/s")
    return {how: tuple(turns) for how, turns in seconds.items()}


def _against(longer: tuple[float, ...], shorter: tuple[float, ...]) -> Ratio:
    turns = [a / b for a, b in zip(longer, shorter, strict=True)]
    return Ratio(median(longer) / median(shorter), min(turns), max(turns))


def _neuron(session: Session) -> list[Result]:
    """Bytes that the equation cannot do without, each tensor once, over the time: beside a copy of a tensor of the same size."""
    from triton.testing import do_bench

    shares: dict[torch.dtype, tuple[float, float, float]] = {}
    lif = Lif(STEPS).cuda()
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(STEPS * session.scale.images, 256, 64, 64, device="cuda", dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        grad, to = torch.randn_like(x), torch.empty_like(x)
        leaf = x.clone().requires_grad_()
        size, n = x.nbytes, x.numel()

        def both(leaf: Tensor = leaf, grad: Tensor = grad) -> None:
            torch.autograd.grad(lif.train()(leaf), leaf, grad)

        with torch.no_grad():
            copied = 2 * size / _median(do_bench, lambda to=to, x=x: to.copy_(x))
            forward = 2 * size / _median(do_bench, lambda x=x: lif.eval()(x))
        backward = (2 * size + n + 3 * size) / _median(do_bench, both)  # the training forward also writes the spikes as bytes
        shares[dtype] = copied, forward / copied, backward / copied
        print(f"\nthe neuron on {list(x.shape)}, {dtype}: a copy moves {copied / 1e12:.2f} TB/s, forward {forward / 1e12:.2f}, ")
        print(f"  forward and backward {backward / 1e12:.2f}")
    copied, *ours = shares[torch.bfloat16]
    return [
        Result(work, target, f"{100 * share:.0f} % of {copied / 1e12:.2f} TB/s", {"share": share, "copy": copied})
        for (work, target), share in zip(_neuron_works(), ours, strict=True)
    ]


def _median(do_bench: Callable[..., Any], call: Callable[[], object]) -> float:
    """Seconds."""
    return float(do_bench(call, warmup=100, rep=500, return_mode="median")) / 1000


# --- what a recipe costs ----------------------------------------------------------------------------------------------------------


def cost(session: Session) -> list[Result]:
    """Operations and memory of every recipe, counted; hours, estimated from them."""
    print("\nwhat the recipes cost: operations and kept memory are counted, hours are estimates")
    print(
        "  network                  params  GMAC/image  epochs  PFLOP/epoch     PFLOP     hours  batch  MB/image     GB  MB/image\n"
        "                                    (forward)          (3 forwards)   in all  (estim.)           (kept)         (spread)"
    )
    for name in session.scale.priced:
        c = price(name)
        epoch, epochs = c.flop * c.images / 1e15, c.recipe.epochs
        hours = epoch * epochs / session.flops * 1e15 / 3600
        least = "" if zoo.info(name).data.size >= FILLS_A_GPU else "> "
        kept, whole = c.kept / 1e6, (c.kept * c.recipe.batch_size + c.states) / 1e9
        print(
            f"  {name:22} {c.parameters / 1e6:7.2f}M {c.macs / 1e9:11.3f} {epochs:7d} {epoch:12.3f} {epoch * epochs:9.1f} "
            f"{least + format(hours, '.2g'):>9} {c.recipe.batch_size:6d} {kept:9.1f} {whole:6.1f} {c.kept_spread / 1e6:9.1f}"
        )
    print(
        f"  hours: at an assumed {session.flops / 1e12:.0f} TFLOP/s on one device, both passes only; '>': a lower bound, as small\n"
        "  layers do not fill a GPU. kept: what lives on after the forward pass for the backward pass, counted; spread: the\n"
        "  same in one of several processes. GB: that of a batch, and weights, gradients, momentum, average and the evaluated\n"
        "  copy, without what an operation needs while it runs."
    )
    _print_measured(session)
    return []


@dataclass(frozen=True)
class Price:
    recipe: Recipe
    images: int  # of the training split
    parameters: int
    macs: int  # of the forward pass of one image, all time steps
    kept: int  # bytes for the backward pass, an image
    kept_spread: int  # the same in one of several processes, whose BatchNorm cannot be computed again by each alone
    states: int  # bytes of everything that has the size of the weights

    @property
    def flop(self) -> int:
        """Of one training image: a multiplication and an addition each, and the backward pass twice the forward pass."""
        return 3 * 2 * self.macs


def price(name: str) -> Price:
    """Counted in a forward pass of one and of two images, whose difference leaves out all that does not grow with the batch."""
    dataset = ModelSpec.parse(name).dataset
    assert dataset is not None
    recipe = Recipe.load(dataset)
    net = network_of(name, "ours")
    (one, macs), (two, _) = (_forward(net, batch_of(name, batch)[0], recipe.bf16) for batch in (1, 2))
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _Spread
    spread_one, spread_two = (_forward(net, batch_of(name, batch)[0], recipe.bf16)[0] for batch in (1, 2))
    parameters = sum(p.numel() for p in net.parameters())
    # float32: weights, gradients, momentum, the evaluated copy, and the average; bfloat16: the weights once more
    states = parameters * (4 * (4 + (recipe.ema > 0)) + 2 * recipe.bf16)
    return Price(recipe, IMAGES[dataset], parameters, macs, two - one, spread_two - spread_one, states)


class _Spread(nn.BatchNorm2d):
    """Of no type of which the network knows how to compute it again; keeps what torch's `SyncBatchNorm` keeps."""


def _forward(net: nn.Module, x: Tensor, bf16: bool) -> tuple[int, int]:
    """Bytes that live on after a training forward pass because the backward pass needs them, and MACs of all weighted layers."""
    macs = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        weight = layer.weight
        assert isinstance(weight, Tensor)
        macs += output.numel() * weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers(), x)}
    try:
        with _Storages() as storages, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = net(x)
    finally:
        for hook in hooks:
            hook.remove()
    kept = sum(size for key, (ref, size) in storages.seen.items() if key not in own and not ref.expired())
    return kept - logits.untyped_storage().nbytes(), macs


class _Storages(TorchDispatchMode):
    """Notes every piece of memory that an operation returns. (Hooks on saved tensors would miss what inner hooks pack.)"""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.seen[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result


def _print_measured(session: Session) -> None:
    """What was measured here or in saved results, as hours of a recipe."""
    known = list(session.throughput)
    for path in sorted(RESULTS.glob("training-*.json")):
        known += json.loads(path.read_text(encoding="utf-8"))["throughput"]
    lines = []
    for entry in known:
        dataset = entry["network"].partition(".")[2]
        recipe = Recipe.load(dataset)
        hours = IMAGES[dataset] * recipe.epochs / entry["images_per_second"] / 3600
        lines.append(
            f"  {entry['network']:22} {entry['precision']}, batch {entry['batch']}: {entry['images_per_second']:.1f} images/s, so "
            f"{hours:,.1f} hours for {recipe.epochs} epochs; {entry['where']}"
        )
    print("measured steps, without reading, changing and testing images:")
    print("\n".join(dict.fromkeys(lines)) or "  none here yet (--save keeps them)")


# --- the table --------------------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Session], list[Result]]] = {"cpu": cpu, "gpu": gpu, "cost": cost}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training side by side with peers, and count what the recipes cost.")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"any of {', '.join(SECTIONS)}; all if none is given")
    parser.add_argument("--batch", type=int, help=f"images of a step (default {FULL.cpu_batch}; on a GPU halved until it fits)")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {FULL.rounds})")
    parser.add_argument("--peak", type=float, default=989, metavar="TFLOP/s", help="of cost's device (default: H100, dense bf16)")
    parser.add_argument("--share", type=float, default=0.25, help="of the peak that cost assumes to be reached (default 0.25)")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/training-DEVICE-DATE.{txt,json}")
    parser.add_argument("--small", action="store_true", help="a smoke run: tiny networks, one round, meaningless figures")
    options = parser.parse_args()
    if unknown := [section for section in options.sections if section not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; valid are {', '.join(SECTIONS)}")
    for flag in ("batch", "rounds", "peak", "share"):
        value = getattr(options, flag)
        if value is not None and not value > 0:
            parser.error(f"--{flag} must be above 0")
    if options.save and options.small:
        parser.error("--save keeps figures; those of --small mean nothing")

    scale = SMOKE if options.small else FULL
    torch.set_num_threads(1)
    session = Session(scale, options.rounds or scale.rounds, options.batch, options.peak * 1e12 * options.share)
    with _recorded() as text:
        print(f"{_device()}\n{_versions()}\none thread of the CPU")
        rows = [row for name in options.sections or SECTIONS for row in SECTIONS[name](session)]
        if rows:
            print(f"\n{_table(rows)}")
    if options.save:
        _save(text.getvalue(), rows, session, vars(options))


def _table(rows: list[Result]) -> str:
    lines = ["| work | target | measured |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.work} | {row.target} | {row.measured} |" for row in rows])


def _device() -> str:
    return f"{torch.cuda.get_device_name()}, {processor()}" if torch.cuda.is_available() else processor()


def _versions() -> str:
    return f"{versions()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else versions()


@contextmanager
def _recorded() -> Iterator[io.StringIO]:
    """Keeps what is printed inside, which is printed all the same."""
    text, screen = io.StringIO(), sys.stdout

    class Both(io.TextIOBase):
        def write(self, part: str) -> int:
            text.write(part)
            written = screen.write(part)
            screen.flush()
            return written

    with contextlib.redirect_stdout(Both()):
        yield text


def _save(text: str, rows: list[Result], session: Session, options: dict[str, Any]) -> None:
    today = date.today().isoformat()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else processor().partition(",")[0]
    device = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{device}-{today}"
    values = {
        "date": today, "device": _device(), "system": platform.platform(), "versions": _versions(), "options": options,
        "rows": [asdict(row) for row in rows], "throughput": session.throughput,
    }  # fmt: skip
    path.with_name(f"{path.name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    path.with_name(f"{path.name}.txt").write_text(f"{today}\n{text}", encoding="utf-8")
    print(f"\nwritten to {path}.txt and .json")


if __name__ == "__main__":
    main()
