"""Train one network for a few steps in this process and print what it took, as JSON: seconds of a
step, and memory in bytes.

    python benchmarks/train_once.py danet18-t4.cifar10 --how ours|loop|compiled|spikingjelly [--batch 64] [--precision fp32|bf16]
                                    [--device cpu|cuda] [--steps 3] [--threads 1] [--channels-last]

`peak` is the most that was in use at any time, `baseline` what was in use before the first step:
libraries, weights and the batch. A process of its own, because a peak of memory cannot be taken
back.

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

import torch
from export_once import peak_memory
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.names import ModelSpec

__all__ = ["HOW", "batch_of", "network_of", "train_once", "training_step"]

HOW = ("ours", "loop", "compiled", "spikingjelly")
# a rate at which no layer falls silent on noise; no timing depends on it
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4


def network_of(
    name: str,
    how: str,
    device: torch.device | str = "cpu",
    *,
    channels_last: bool | None = None,
    stem: str | None = None,
) -> nn.Module:
    """A network with random weights, in training mode. `channels_last`: by default as it is
    trained, ours so, the others not.

    `compiled` is ours through `torch.compile`. `stem`: by default that of the name's data set.
    """
    torch.manual_seed(0)
    net: nn.Module
    options = {"stem": stem} if stem else {}
    if how in ("ours", "compiled"):
        net = zoo.create(name, **options)
    elif how == "loop":
        from loop import Loop

        net = Loop(zoo.create(name, **options))
    else:
        from peers import SpikingJelly

        spec = ModelSpec.parse(name)
        assert zoo.info(name).data.channels == 3, (
            "SpikingJelly's SEW-ResNet takes images of three channels"
        )
        net = SpikingJelly(spec.depth, spec.steps)
    net = net.to(device).train()
    last = how in ("ours", "compiled") if channels_last is None else channels_last
    net = net.to(memory_format=torch.channels_last) if last else net
    if how == "compiled":
        net.compile()
    return net


def batch_of(name: str, batch: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Noise `[B, C, H, W]` (events `[T, B, C, H, W]`) of the size of the name's data set, and
    labels `[B]`.
    """
    data, steps = zoo.info(name).data, ModelSpec.parse(name).steps
    random = torch.Generator().manual_seed(1)
    shape = (*((steps,) if data.events else ()), batch, data.channels, data.size, data.size)
    x, labels = (
        torch.randn(shape, generator=random),
        torch.randint(data.num_classes, (batch,), generator=random),
    )
    return x.to(device), labels.to(device)


def training_step(
    net: nn.Module, x: Tensor, labels: Tensor, *, precision: str
) -> Callable[[], Tensor]:
    """One step of the optimiser, to be called again and again; it returns the loss."""
    if (
        next(p for p in net.parameters() if p.dim() == 4).is_contiguous(
            memory_format=torch.channels_last
        )
        and x.dim() == 4
    ):
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
    """What this file prints when it runs in a process of its own. `choice`: variables of its
    environment.

    Raises `RuntimeError` with the last line of its errors.
    """
    arguments = [
        "--how",
        how,
        "--batch",
        str(batch),
        "--precision",
        precision,
        "--device",
        device,
        "--steps",
        str(steps),
        *flags,
    ]
    environment = os.environ | dict(choice or {})
    done = subprocess.run(
        [sys.executable, __file__, name, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train one network for a few steps and print seconds and memory."
    )
    parser.add_argument("name")
    parser.add_argument("--how", choices=HOW, default="ours")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="timed ones, after one that is not")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--channels-last",
        action="store_true",
        default=None,
        help="a contender that by default is not",
    )
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    net = network_of(options.name, options.how, options.device, channels_last=options.channels_last)
    step = training_step(
        net, *batch_of(options.name, options.batch, options.device), precision=options.precision
    )
    baseline = _gpu_memory() if cuda else _resident()
    clocks = [_timed(step, cuda) for _ in range(options.steps + 1)]
    if not clocks[-1][2] < float("inf"):
        sys.exit(f"{options.how}: the loss is not finite")
    wall, cpu = (median(turn[i] for turn in clocks[1:] or clocks) for i in (0, 1))
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    print(
        json.dumps(
            {
                "seconds": wall,
                "cpu": cpu,
                "peak": peak,
                "baseline": baseline,
                "steps": options.steps,
            }
        )
    )


def _timed(step: Callable[[], Tensor], cuda: bool) -> tuple[float, float, float]:
    """Wall time, CPU time, and the loss."""
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu, loss.item()


def _gpu_memory() -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _resident() -> int:
    """Bytes of this process in memory, without what was freed; the peak starts here."""
    gc.collect()
    with suppress(OSError, AttributeError):  # a C library that has none of this
        ctypes.CDLL(None).malloc_trim(0)
    # only Linux, and not in every container; what building the network took is less than a step
    # anyway
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
