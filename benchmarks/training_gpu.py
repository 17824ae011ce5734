"""The section `gpu` of training.py: steps of large ResNets beside SpikingJelly's and the loop, the
neuron alone beside a copy.
"""

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

import torch
from loop import assert_same, assert_same_neuron
from run import STEPS, images, network
from timing import Ratio
from torch import Tensor
from train_once import batch_of, network_of, train_once, training_step
from training_rows import TITLES, Result, Session, above, memory_row

from zoo.neurons import Lif

__all__ = ["gpu"]

NOT_RUN = "not run on a GPU yet"


def gpu(session: Session) -> list[Result]:
    """Steps of large ResNets beside SpikingJelly's and the loop, and the neuron alone beside a
    copy.
    """
    depths = session.scale.depths
    if not torch.cuda.is_available():
        print(f"\ngpu: {NOT_RUN}")
        return [Result(work, target, NOT_RUN) for d in depths for work, target in _gpu_works(d)] + [
            Result(work, target, NOT_RUN) for work, target in _neuron_works()
        ]
    from peers import SPIKINGJELLY_CHOICE

    print(
        f"\n{torch.cuda.get_device_name()}; CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    )
    assert_same_neuron("cuda")
    model = network(session.scale.cpu).cuda()
    assert_same(model, images(model, 2).cuda())
    del model
    choice, flags = _fastest_spikingjelly(
        f"danet{depths[0]}-t{STEPS}.in1k", session.scale.gpu_batch
    )
    # read when spikingjelly is imported, which only happens below
    os.environ[SPIKINGJELLY_CHOICE] = choice
    rows = [
        row
        for depth in depths
        for row in _depth(depth, session, f"{choice}{', channels_last' if flags else ''}", flags)
    ]
    return rows + _neuron(session)


def _gpu_works(depth: int) -> list[tuple[str, str]]:
    """Work and target of each row."""
    work, peer = (
        f"training of danet{depth}-t{STEPS}, 224x224, bfloat16",
        f"SpikingJelly sew_resnet{depth}",
    )
    return [
        (f"{work}, against {peer}: images/s", "1.3x"),
        (f"{work}, against {peer}: peak memory", "0.60x"),
        (f"{work}, against the snnTorch loop: images/s", "6x"),
    ]


def _neuron_works() -> list[tuple[str, str]]:
    work = "the fused neuron, T = 4, bfloat16, bytes/s as a share of a copy's"
    return [(f"{work}: forward", "80 %"), (f"{work}: forward and backward", "80 %")]


def _fastest_spikingjelly(name: str, batch: int) -> tuple[str, list[str]]:
    """Of its implementations of the neuron, with either memory format of the weights, what trains
    `name` fastest here.
    """
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
                    once = train_once(
                        name, "spikingjelly", size, "bf16", "cuda", *flags, steps=5, choice=chosen
                    )
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
    # outside of the handler of the error, which holds on to all that filled the memory
    while calls is None and batch > 1:
        batch //= 2
        calls = _fitting(name, batch, flags)
    assert calls is not None, f"one image of {name} is too much for this GPU"
    times = _turns(
        f"{name}, bfloat16, batch {batch}, SpikingJelly: {peer}", calls, batch, session.rounds
    )
    session.throughput.append(
        {"network": name, "batch": batch, "precision": "bf16", "images_per_second": batch / median(times["ours"]),
         "where": torch.cuda.get_device_name()}
    )  # fmt: skip
    calls.clear()
    gc.collect()
    torch.cuda.empty_cache()

    rows = []
    used = {
        how: train_once(name, how, batch, "bf16", "cuda", *(flags if how == "spikingjelly" else []))
        for how in TITLES
    }
    for how, once in used.items():
        print(
            f"  {TITLES[how]:42} {once['peak'] / 1e9:8.2f} GB peak {above(once) / 1e9:8.2f} GB above weights and batch"
        )
    faster, smaller, much_faster = _gpu_works(depth)
    for (work, target), how in ((faster, "spikingjelly"), (much_faster, "loop")):
        against = _against(times[how], times["ours"])
        speeds = " against ".join(f"{batch / median(times[who]):.0f}" for who in ("ours", how))
        figures = {
            "ratio": asdict(against),
            "batch": batch,
            "seconds": {who: times[who] for who in ("ours", how)},
            "peer": peer,
        }
        rows.append(Result(work, target, f"{against}; {speeds} images/s, batch {batch}", figures))
    rows.insert(1, memory_row(*smaller, used["ours"], used["spikingjelly"]))
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
            calls[how] = training_step(
                network_of(name, how, "cuda", channels_last=last), x, labels, precision="bf16"
            )
            assert calls[how]().isfinite(), f"{how}: the loss is not finite"
            torch.cuda.empty_cache()
    except torch.OutOfMemoryError:
        print(f"  batch {batch} does not fit: {TITLES[how]}")
        return None
    return calls


def _turns(
    title: str, calls: Mapping[str, Callable[[], object]], batch: int, rounds: int, steps: int = 5
) -> dict[str, tuple[float, ...]]:
    """Seconds of a step, by the GPU's own clock: in every turn two steps that do not count, then
    the mean of `steps`.
    """
    seconds: dict[str, list[float]] = {how: [] for how in calls}
    for _ in range(rounds):
        for how, call in calls.items():
            # what the one before keeps for itself; the first step takes its own
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
        print(
            f"  {TITLES[how]:42} {1000 * median(turns):9.1f} ms {batch / median(turns):9.1f} images/s"
        )
    return {how: tuple(turns) for how, turns in seconds.items()}


def _against(longer: tuple[float, ...], shorter: tuple[float, ...]) -> Ratio:
    turns = [a / b for a, b in zip(longer, shorter, strict=True)]
    return Ratio(median(longer) / median(shorter), min(turns), max(turns))


def _neuron(session: Session) -> list[Result]:
    """Bytes that the equation cannot do without, each tensor once, over the time: beside a copy of
    a tensor of the same size.
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
            f"\nthe neuron on {list(x.shape)}, {dtype}: a copy moves {copied / 1e12:.2f} TB/s, forward {forward / 1e12:.2f}, "
        )
        print(f"  forward and backward {backward / 1e12:.2f}")
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
    """Seconds."""
    return float(do_bench(call, warmup=100, rep=500, return_mode="median")) / 1000
