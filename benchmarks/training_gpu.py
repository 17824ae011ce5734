"""The section `gpu` of training.py: steps of large ResNets, and the neuron alone.

The networks are timed beside SpikingJelly's and the loop, in images per second by the GPU's own
clock: medians of interleaved rounds of five steps. Memory is the peak of what torch allocates, in
GB. The neuron is timed beside a copy of a tensor of the same size, in bytes per second.
"""

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any

import torch
from loop import assert_same, assert_same_neuron
from run import STEPS, images, network
from timing import ratio_of
from torch import Tensor
from train_once import batch_of, network_of, train_once, training_step
from training_rows import TITLES, Result, Session, above, memory_row

from zoo.neurons import Lif

__all__ = ["gpu"]

NOT_RUN = "not run on a GPU yet"


def gpu(session: Session) -> list[Result]:
    """Measure the networks and the neuron on this machine's GPU, if it has one."""
    depths = session.scale.depths
    if not torch.cuda.is_available():
        print(f"\ngpu: {NOT_RUN}")
        works = [work for depth in depths for work in _network_works(depth)] + _neuron_works()
        return [Result(work, target, NOT_RUN) for work, target in works]
    from peers import SPIKINGJELLY_CHOICE

    cuda, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    print(f"\n{torch.cuda.get_device_name()}; CUDA {cuda}, cuDNN {cudnn}")
    assert_same_neuron("cuda")
    model = network(session.scale.cpu).cuda()
    assert_same(model, images(model, 2).cuda())
    del model
    peer = _fastest_spikingjelly(f"danet{depths[0]}-t{STEPS}.in1k", session.scale.gpu_batch)
    # It is read when spikingjelly is imported, which only happens below.
    os.environ[SPIKINGJELLY_CHOICE] = peer.choice
    rows = [row for depth in depths for row in _network_rows(depth, session, peer)]
    return rows + _neuron_rows(session)


@dataclass(frozen=True)
class Peer:
    """An implementation of SpikingJelly's neuron, and the memory format of its weights."""

    choice: str
    channels_last: bool

    @property
    def flags(self) -> list[str]:
        """The options of train_once.py."""
        return ["--channels-last"] if self.channels_last else []

    def __str__(self) -> str:
        return f"{self.choice}{', channels_last' if self.channels_last else ''}"


def _network_works(depth: int) -> list[tuple[str, str]]:
    """Return work and target of each row of a network."""
    work = f"training of danet{depth}-t{STEPS}, 224x224, bfloat16"
    peer = f"SpikingJelly sew_resnet{depth}"
    return [
        (f"{work}, against {peer}: images/s", "1.3x"),
        (f"{work}, against {peer}: peak memory", "0.60x"),
        (f"{work}, against the snnTorch loop: images/s", "6x"),
    ]


def _neuron_works() -> list[tuple[str, str]]:
    """Return work and target of each row of the neuron."""
    work = "the fused neuron, T = 4, bfloat16, bytes/s as a share of a copy's"
    return [(f"{work}: forward", "80 %"), (f"{work}: forward and backward", "80 %")]


def _fastest_spikingjelly(name: str, batch: int) -> Peer:
    """Return what trains `name` fastest here, of its implementations in either memory format."""
    from peers import SPIKINGJELLY_IMPLEMENTATIONS

    print(f"\nSpikingJelly's implementations, {name}, bfloat16, each in a process of its own")
    seconds: dict[Peer, float] = {}
    for choice, channels_last in product(SPIKINGJELLY_IMPLEMENTATIONS, (False, True)):
        peer = Peer(choice, channels_last)
        per_image = _seconds_per_image(name, batch, peer)
        if per_image is not None:
            seconds[peer] = per_image
    if not seconds:
        raise RuntimeError("SpikingJelly does not train on this GPU")
    return min(seconds, key=lambda peer: seconds[peer])


def _seconds_per_image(name: str, batch: int, peer: Peer) -> float | None:
    """Train SpikingJelly's network on the largest batch that fits; None if it does not run."""
    from peers import SPIKINGJELLY_CHOICE

    environment = {SPIKINGJELLY_CHOICE: peer.choice}
    while batch:
        try:
            once = train_once(
                name,
                "spikingjelly",
                batch,
                "bf16",
                "cuda",
                *peer.flags,
                steps=5,
                choice=environment,
            )
        except RuntimeError as error:
            if "out of memory" not in str(error):
                print(f"  {peer!s:42} does not run: {str(error)[:120]}")
                return None
            batch //= 2
        else:
            print(f"  {peer!s:42} {batch / once['seconds']:9.1f} images/s, batch {batch}")
            return once["seconds"] / batch
    return None


def _network_rows(depth: int, session: Session, peer: Peer) -> list[Result]:
    """Time a step of every contender in turns, then measure the memory of each alone."""
    name = f"danet{depth}-t{STEPS}.in1k"
    batch = session.batch or session.scale.gpu_batch
    calls = _fitting(name, batch, peer)
    # This is outside of the handler of the error, which holds on to all that filled the memory.
    while calls is None and batch > 1:
        batch //= 2
        calls = _fitting(name, batch, peer)
    assert calls is not None, f"one image of {name} is too much for this GPU"
    title = f"{name}, bfloat16, batch {batch}, SpikingJelly: {peer}"
    times = _turns(title, calls, batch, session.rounds)
    speed = {how: batch / median(turns) for how, turns in times.items()}
    session.add_throughput(name, batch, "bf16", speed["ours"], torch.cuda.get_device_name())
    calls.clear()
    gc.collect()
    torch.cuda.empty_cache()

    memory = {}
    for how, contender in TITLES.items():
        flags = peer.flags if how == "spikingjelly" else []
        once = memory[how] = train_once(name, how, batch, "bf16", "cuda", *flags)
        peak, rest = once["peak"] / 1e9, above(once) / 1e9
        print(f"  {contender:42} {peak:8.2f} GB peak {rest:8.2f} GB above weights and batch")
    faster, smaller, much_faster = _network_works(depth)

    def speed_row(work: str, target: str, how: str) -> Result:
        against = ratio_of(times[how], times["ours"])
        seconds = {who: times[who] for who in ("ours", how)}
        figures = {
            "ratio": asdict(against),
            "batch": batch,
            "seconds": seconds,
            "peer": str(peer),
        }
        speeds = f"{speed['ours']:.0f} against {speed[how]:.0f} images/s"
        return Result(work, target, f"{against}; {speeds}, batch {batch}", figures)

    return [
        speed_row(*faster, "spikingjelly"),
        memory_row(*smaller, memory["ours"], memory["spikingjelly"]),
        speed_row(*much_faster, "loop"),
    ]


def _fitting(name: str, batch: int, peer: Peer) -> dict[str, Callable[[], Tensor]] | None:
    """Return a step of every contender, or None if one of them runs out of memory."""
    gc.collect()
    torch.cuda.empty_cache()
    x, labels = batch_of(name, batch, "cuda")
    calls: dict[str, Callable[[], Tensor]] = {}
    try:
        for how in TITLES:
            last = True if how == "spikingjelly" and peer.channels_last else None
            net = network_of(name, how, "cuda", channels_last=last)
            calls[how] = training_step(net, x, labels, precision="bf16")
            assert calls[how]().isfinite(), f"{how}: the loss is not finite"
            torch.cuda.empty_cache()
    except torch.OutOfMemoryError:
        print(f"  batch {batch} does not fit: {TITLES[how]}")
        return None
    return calls


def _turns(
    title: str, calls: Mapping[str, Callable[[], object]], batch: int, rounds: int, steps: int = 5
) -> dict[str, tuple[float, ...]]:
    """Return the seconds of a step in every round, by the GPU's own clock.

    In every turn two steps do not count; then the mean of `steps` is taken.
    """
    seconds: dict[str, list[float]] = {how: [] for how in calls}
    for _ in range(rounds):
        for how, call in calls.items():
            # This returns what the contender before holds in reserve.
            torch.cuda.empty_cache()
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
        step = median(turns)
        print(f"  {TITLES[how]:42} {1000 * step:9.1f} ms {batch / step:9.1f} images/s")
    return {how: tuple(turns) for how, turns in seconds.items()}


def _neuron_rows(session: Session) -> list[Result]:
    """Compare the bytes per second of the neuron with those of a copy of a tensor of its size.

    The neuron is charged with the bytes that its equation cannot do without, each tensor once.
    """
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
        # the training forward also writes the spikes as bytes
        backward = (2 * size + n + 3 * size) / _median(do_bench, both)
        shares[dtype] = copied, forward / copied, backward / copied
        print(
            f"\nthe neuron on {list(x.shape)}, {dtype}: a copy moves {copied / 1e12:.2f} TB/s, "
            f"forward {forward / 1e12:.2f}, \n  forward and backward {backward / 1e12:.2f}"
        )
    copied, *ours = shares[torch.bfloat16]
    return [
        Result(
            work,
            target,
            f"{100 * share:.0f} % of {copied / 1e12:.2f} TB/s",
            {"share": share, "copy": copied},
        )
        for (work, target), share in zip(_neuron_works(), ours, strict=True)
    ]


def _median(do_bench: Callable[..., Any], call: Callable[[], object]) -> float:
    """Return the median seconds of a call."""
    return float(do_bench(call, warmup=100, rep=500, return_mode="median")) / 1000
