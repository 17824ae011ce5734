"""Top-1 on CIFAR-10 against core-minutes, of our recipes and of others.

The others are SpikingJelly's network with a usual recipe, and our network with ReLU.

    python benchmarks/race.py run --data SOURCE [--minutes 60] [--seeds 1] [CONTENDER ...]
        runs what has no log yet, each on a core of its own
    python benchmarks/race.py table
        writes docs/race.md and its picture from the logs

Every contender has about as many minutes of one core, as its own schedule ends there: the number of
its epochs follows from the time of its first steps. The test split is only looked at after epochs;
what that costs is not counted. README.md says how to install SpikingJelly.
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from zoo.datasets import DATASETS
from zoo.images import normalise
from zoo.neurons import Lif
from zoo.processor import has_bfloat16, processor
from zoo.publishing.plot_style import COLOURS, new_figure
from zoo.training import augment
from zoo.training.config import Recipe
from zoo.training.data import Images, load_split
from zoo.training.sampler import BatchSampler, generator
from zoo.training.train import TrainingRun, train

LOGS = Path(__file__).parent / "results" / "race"
PAGE = Path(__file__).parent.parent / "docs" / "race.md"
PICTURE = PAGE.with_suffix(".png")
BEGIN, END = "<!-- table: written by `python benchmarks/race.py table` -->", "<!-- end of table -->"
DATA = DATASETS["cifar10"]
TIMED = 4  # steps from which the length of an epoch is estimated, after one that warms up
BEFORE = {  # a usual recipe of as light changes of the images
    "lr": "0.1",
    "schedule": "cosine",
    "warmup_epochs": "1",
    "whiten": "false",
    "crop_padding": "4",
    "crop_mode": "zeros",
    "flip": "true",
    "flip_alternating": "false",
}


@dataclass(frozen=True)
class Contender:
    """A network and how it is trained; every first convolution halves the resolution."""

    title: str
    train: "Callable[[Contender, Images, Images, float, int, Path], list[dict[str, float]]]"
    name: str = "danet18-t1.cifar10"
    overrides: dict[str, str] = field(default_factory=dict)
    relu: bool = False  # a ReLU in the place of each neuron


def zoo_curve(
    contender: Contender, images: Images, test: Images, minutes: float, seed: int, run: Path
) -> list[dict[str, float]]:
    """Train a network of the zoo by its recipe: core-minutes and top-1 after each epoch."""
    recipe = Recipe.load(
        "cifar10", contender.overrides | {"seed": str(seed), "epochs": "1", "source": ""}
    )
    torch.manual_seed(seed)
    model = zoo.create(contender.name, stem="medium")
    if contender.relu:
        replace_neurons(model)
    epochs = run / "epochs"
    if not epochs.exists():
        pixels, labels = images.pixels[: recipe.batch_size], images.labels[: recipe.batch_size]
        x = normalise(pixels, DATA).contiguous(memory_format=torch.channels_last)
        net = copy.deepcopy(model)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
        seconds = seconds_a_step(lambda: loss_of(net, x, labels).backward())
        run.mkdir(parents=True, exist_ok=True)
        epochs.write_text(
            str(epochs_within(minutes, seconds, images.images // recipe.batch_size)),
            encoding="utf-8",
        )
    recipe = Recipe.from_dict(
        recipe.to_dict() | {"epochs": int(epochs.read_text(encoding="utf-8"))}
    )
    train(model, TrainingRun(recipe, images, test, run))
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return curve_of([line["core_seconds"] for line in lines], [line["test_top1"] for line in lines])


def replace_neurons(model: nn.Module) -> None:
    """Put a ReLU into the place of each neuron: with T = 1 the same network without spikes."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, Lif):
                setattr(parent, name, nn.ReLU())


def spikingjelly_curve(
    contender: Contender, images: Images, test: Images, minutes: float, seed: int, run: Path
) -> list[dict[str, float]]:
    """Train SpikingJelly's SEW-ResNet-18 as its tutorials do; it is not resumed.

    They use Adam, a cosine schedule, random crops and flips.
    """
    from peers import SpikingJelly

    torch.manual_seed(seed)
    net = SpikingJelly(18, int(contender.name.rpartition("-t")[2].partition(".")[0]))
    net.net.conv1, net.net.maxpool, net.net.fc = (
        _conv(3, 64),
        nn.Identity(),
        _linear(512, DATA.num_classes),
    )
    sampler = BatchSampler(images.images, 128, seed)
    first = sampler.indices(0)
    x, labels = normalise(images.pixels[first], DATA), images.labels[first]
    seconds = seconds_a_step(lambda: loss_of(net, x, labels).backward())
    epochs = epochs_within(minutes, seconds, sampler.per_epoch)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    seconds, scores = [], []
    for epoch in range(epochs):
        net.train()
        begun = time.process_time()
        for step in range(epoch * sampler.per_epoch, (epoch + 1) * sampler.per_epoch):
            index, random = sampler.indices(step), generator(seed, step)
            x = augment.flip(augment.crop(normalise(images.pixels[index], DATA), 4, random), random)
            optimizer.zero_grad(set_to_none=True)
            loss_of(net, x, images.labels[index]).backward()
            optimizer.step()
        schedule.step()
        seconds.append(time.process_time() - begun)
        scores.append(top1(net.eval(), test))
    return curve_of(seconds, scores)


def _conv(cin: int, cout: int) -> nn.Module:
    from spikingjelly.activation_based import layer

    conv: nn.Module = layer.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False, step_mode="m")
    return conv


def _linear(width: int, classes: int) -> nn.Module:
    from spikingjelly.activation_based import layer

    linear: nn.Module = layer.Linear(width, classes, step_mode="m")
    return linear


def loss_of(net: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy, of convolutions in bfloat16 where the processor multiplies in it.

    The recipes of the zoo do the same (`bf16 = "auto"`), so that nobody has it for himself.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu"))):
        logits = net(x)
    return F.cross_entropy(logits.float(), labels)


@torch.inference_mode()
def top1(net: Callable[[Tensor], Tensor], test: Images) -> float:
    """The share of test images that a network classifies as they are labelled."""
    correct = sum(
        int((net(normalise(x, DATA)).argmax(1) == labels).sum())
        for x, labels in test.evaluation(250)
    )
    return correct / test.images


def seconds_a_step(step: Callable[[], Any]) -> float:
    """Processor time of a training step, the median of a few; gradients are left as they are."""
    times = []
    for _ in range(TIMED + 1):
        begun = time.process_time()
        step()
        times.append(time.process_time() - begun)
    return statistics.median(times[1:])


def epochs_within(minutes: float, seconds: float, steps: int) -> int:
    """Whole epochs of `steps` steps that fit into the minutes, at least one."""
    return max(1, math.floor(minutes * 60 / (seconds * steps)))


def curve_of(seconds: list[float], scores: list[float]) -> list[dict[str, float]]:
    """Minutes since the beginning and top-1, after each epoch."""
    minutes = [sum(seconds[: i + 1]) / 60 for i in range(len(seconds))]
    return [
        {"minutes": round(at, 2), "top1": score} for at, score in zip(minutes, scores, strict=True)
    ]


CONTENDERS: dict[str, Contender] = {
    "fast": Contender("DANet-18, T = 1, fast recipe", zoo_curve),
    "before": Contender(
        "DANet-18, T = 1, usual recipe (SGD 0.1, cosine, crop 4)", zoo_curve, overrides=BEFORE
    ),
    "relu": Contender("the same network with ReLU, fast recipe", zoo_curve, relu=True),
    "spikingjelly-t1": Contender(
        "SpikingJelly, SEW-ResNet-18, T = 1, Adam", spikingjelly_curve, "sew-resnet18-t1.cifar10"
    ),
    "spikingjelly-t4": Contender(
        "SpikingJelly, SEW-ResNet-18, T = 4, Adam", spikingjelly_curve, "sew-resnet18-t4.cifar10"
    ),
}


def run_one(key: str, seed: int, options: argparse.Namespace) -> None:
    """Run a contender in this process, and write its log."""
    torch.set_num_threads(1)
    contender = CONTENDERS[key]
    splits = [load_split(DATA, split, options.data, workers=0) for split in ("train", "test")]
    images, test = (split for split in splits if isinstance(split, Images))
    run = Path("runs/race") / f"{key}-{options.minutes:g}-{seed}"
    curve = contender.train(contender, images, test, options.minutes, seed, run)
    log = {
        "contender": key,
        "title": contender.title,
        "seed": seed,
        "budget_minutes": options.minutes,
        "curve": curve,
        "processor": f"one core of {processor()}",
        "torch": torch.__version__,
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    log_of(key, seed, options.minutes).write_text(
        json.dumps(log, indent=1) + "\n", encoding="utf-8"
    )
    print(
        f"{contender.title}: {curve[-1]['top1']:.2%} after {curve[-1]['minutes']:.0f} core-minutes",
        flush=True,
    )


def log_of(key: str, seed: int, minutes: float) -> Path:
    return LOGS / f"{key}-{minutes:g}min-seed{seed}.json"


def run_all(options: argparse.Namespace) -> None:
    """Run what has no log yet, each in a process of its own, one on each core."""
    keys = options.contenders or list(CONTENDERS)
    missing = [
        (key, s)
        for s in range(options.seeds)
        for key in keys
        if not log_of(key, s, options.minutes).exists()
    ]
    command = [
        sys.executable,
        __file__,
        "one",
        "--data",
        options.data,
        "--minutes",
        str(options.minutes),
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(
            lambda run: subprocess.run([*command, "--seed", str(run[1]), run[0]], check=False),
            missing,
        ):
            if done.returncode:
                print(f"{' '.join(map(str, done.args))}: status {done.returncode}", file=sys.stderr)


def write_page() -> None:
    """Write the table between the page's marks, and the picture."""
    logs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(LOGS.glob("*.json"))]
    rows = [
        "| contender | budget, core-minutes | seed | epochs | core-minutes "
        "| top-1 after the last epoch | processor |",
        "|---|---|---|---|---|---|---|",
    ]
    for log in sorted(logs, key=lambda log: (log["budget_minutes"], -log["curve"][-1]["top1"])):
        last = log["curve"][-1]
        rows.append(
            f"| {log['title']} | {log['budget_minutes']:g} | {log['seed']} | {len(log['curve'])} "
            f"| {last['minutes']:.0f} | {last['top1']:.2%} "
            f"| {log['processor']}, torch {log['torch']} |"
        )
    page = PAGE.read_text(encoding="utf-8")
    head, tail = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    PAGE.write_text(f"{head}\n\n{chr(10).join(rows)}\n\n{tail}", encoding="utf-8")
    draw(logs)


def draw(logs: list[dict[str, Any]]) -> None:
    """Draw top-1 against core-minutes, a line for each run and a colour for each contender."""
    figure, (axes,) = new_figure(height=5)
    colours = dict(zip(CONTENDERS, COLOURS, strict=False))
    named: set[str] = set()
    for log in logs:
        key, curve = log["contender"], log["curve"]
        label = None if key in named else log["title"]
        named.add(key)
        axes.plot(
            [p["minutes"] for p in curve],
            [100 * p["top1"] for p in curve],
            "o-",
            ms=3,
            lw=1,
            color=colours[key],
            label=label,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("minutes of one core")
    axes.set_ylabel("top-1 on 10,000 test images, %")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Race recipes and networks against core-minutes.")
    commands = parser.add_subparsers(required=True)
    for name, command in (
        ("run", run_all),
        ("one", lambda options: run_one(options.contenders[0], options.seed, options)),
    ):
        sub = commands.add_parser(name)
        sub.add_argument(
            "contenders",
            nargs="*",
            metavar="CONTENDER",
            help=f"of {', '.join(CONTENDERS)} (default: all)",
        )
        sub.add_argument("--data", required=True, metavar="SOURCE", help="where CIFAR-10 lies")
        sub.add_argument(
            "--minutes", type=float, default=60.0, help="budget of each, of one core (default: 60)"
        )
        sub.add_argument("--seeds", type=int, default=1)
        sub.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
        sub.set_defaults(command=command)
    commands.add_parser("table").set_defaults(command=lambda options: write_page())
    options = parser.parse_args()
    if unknown := set(getattr(options, "contenders", [])) - CONTENDERS.keys():
        parser.error(f"unknown contender {min(unknown)!r}; valid are {', '.join(CONTENDERS)}")
    options.command(options)


if __name__ == "__main__":
    main()
