"""Train one network for a few steps in this process, and print as JSON what it took.

    python benchmarks/train_once.py danet18-t4.cifar10 --how ours|loop|compiled|spikingjelly
                                    [--batch 64] [--precision fp32|bf16] [--device cpu|cuda]
                                    [--steps 3] [--threads 1] [--channels-last]

It prints the seconds of a step, the median of several after one that does not count, and memory in
bytes: `peak` is the most that was in use at any time, `baseline` what was in use before the first
step, which is libraries, weights and the batch. A peak cannot be taken back, so every contender has
a process of its own.

A step is that of `zoo.training.train`: forward under autocast, cross entropy in float32, backward,
SGD with Nesterov momentum.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from export_once import peak_memory
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.names import ModelSpec

__all__ = ["HOW", "batch_of", "network_of", "train_once", "training_step"]

HOW = ("ours", "loop", "compiled", "spikingjelly")
# At this rate no layer falls silent on noise; no timing depends on it.
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4


def network_of(
    name: str,
    how: str,
    device: torch.device | str = "cpu",
    *,
    channels_last: bool | None = None,
    stem: str | None = None,
) -> nn.Module:
    """Return a network with random weights, in training mode.

    Args:
        name: The network in the zoo.
        how: One of `HOW`; `compiled` is ours through `torch.compile`.
        device: The device of its weights.
        channels_last: The memory format of its weights; by default ours have it, others not.
        stem: The stem; by default that of the name's data set.
    """
    torch.manual_seed(0)
    net: nn.Module
    options: dict[str, Any] = {"stem": stem} if stem else {}
    if how in ("ours", "compiled"):
        net = zoo.create(name, **options)
    elif how == "loop":
        from loop import Loop

        net = Loop(zoo.create(name, **options))
    else:
        from peers import SpikingJelly

        spec = ModelSpec.parse(name)
        channels = zoo.info(name).data.channels
        assert channels == 3, "SpikingJelly's SEW-ResNet takes images of three channels"
        net = SpikingJelly(spec.depth, spec.steps)
    net = net.to(device).train()
    if channels_last is None:
        channels_last = how in ("ours", "compiled")
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    if how == "compiled":
        net.compile()
    return net


def batch_of(name: str, batch: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return noise `[B, C, H, W]` of the size of the name's data set, and labels `[B]`.

    Of a data set of events the noise is `[T, B, C, H, W]`.
    """
    data, steps = zoo.info(name).data, ModelSpec.parse(name).steps
    random = torch.Generator().manual_seed(1)
    shape = (batch, data.channels, data.size, data.size)
    x = torch.randn((steps, *shape) if data.events else shape, generator=random)
    labels = torch.randint(data.num_classes, (batch,), generator=random)
    return x.to(device), labels.to(device)


def training_step(
    net: nn.Module, x: Tensor, labels: Tensor, *, precision: str
) -> Callable[[], Tensor]:
    """Return a step of the optimizer, to be called again and again; the step returns the loss."""
    filters = next(p for p in net.parameters() if p.dim() == 4)
    if filters.is_contiguous(memory_format=torch.channels_last) and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )

    def step() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = net(x)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


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
    """Run this file in a process of its own, and return what it prints.

    `choice` holds variables of the process's environment.

    Raises:
        RuntimeError: The process has failed; the message is the last line of its errors.
    """
    options = {"how": how, "batch": batch, "precision": precision, "device": device, "steps": steps}
    arguments = [f"--{option}={value}" for option, value in options.items()]
    command = [sys.executable, __file__, name, *arguments, *flags]
    environment = os.environ | dict(choice or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Train the network that the command line names, and print the figures."""
    options = _parse_arguments()
    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    net = network_of(options.name, options.how, options.device, channels_last=options.channels_last)
    x, labels = batch_of(options.name, options.batch, options.device)
    step = training_step(net, x, labels, precision=options.precision)
    baseline = _gpu_memory() if cuda else _resident_memory()
    turns = [_timed(step, cuda) for _ in range(options.steps + 1)]
    if not turns[-1].loss < float("inf"):
        sys.exit(f"{options.how}: the loss is not finite")
    counted = turns[1:] or turns
    figures = {
        "seconds": median(turn.wall for turn in counted),
        "cpu": median(turn.cpu for turn in counted),
        "peak": torch.cuda.max_memory_allocated() if cuda else peak_memory(),
        "baseline": baseline,
        "steps": options.steps,
    }
    print(json.dumps(figures))


def _parse_arguments() -> argparse.Namespace:
    description = "Train one network for a few steps and print seconds and memory."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name")
    parser.add_argument("--how", choices=HOW, default="ours")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="timed ones, after one that is not")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--channels-last", action="store_true", default=None, help="also of a contender without it"
    )
    return parser.parse_args()


class _Turn(NamedTuple):
    """Seconds of a step, and its loss."""

    wall: float
    cpu: float
    loss: float


def _timed(step: Callable[[], Tensor], cuda: bool) -> _Turn:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step()
    if cuda:
        torch.cuda.synchronize()
    return _Turn(time.perf_counter() - wall, time.process_time() - cpu, loss.item())


def _gpu_memory() -> int:
    """Return the bytes that are allocated on the GPU; the peak is counted from here on."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _resident_memory() -> int:
    """Return the bytes of this process in memory, without what was freed.

    The peak is counted from here on, where the system allows that.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library without this function
        ctypes.CDLL(None).malloc_trim(0)
    # Some containers do not allow this; building the network takes less memory than a step anyway.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
