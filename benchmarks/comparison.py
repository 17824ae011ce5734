"""Which connection, at which T: top-1 and SynOps of small networks under one recipe and budget.

    python benchmarks/comparison.py train --data FOLDER [--seeds N] [NETWORK ...]
        trains what has no log yet, two at a time, a core each
    python benchmarks/comparison.py table
        writes the tables and the picture of docs/comparison.md from the logs

Every network is trained once for each seed. A run's log,
`benchmarks/results/comparison/NETWORK-seedN.json`, holds the recipe, a line for each epoch, and
synaptic operations per test image. A run that was stopped goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch

import zoo
from export.energy import estimate
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.files import write_text
from zoo.images import normalise
from zoo.processor import processor
from zoo.publishing.plot_style import label_points, new_figure
from zoo.training.config import Recipe
from zoo.training.data import Images, load_split
from zoo.training.train import TrainingRun, train

LOGS = Path(__file__).parent / "results" / "comparison"
PAGE = Path(__file__).parent.parent / "docs" / "comparison.md"
PICTURE = PAGE.with_suffix(".png")
RUNS = Path("runs/comparison")
BEGIN, END = (
    "<!-- tables: written by `python benchmarks/comparison.py table` -->",
    "<!-- end of tables -->",
)
TRAINING_IMAGES = 20_000  # the first of the training split, each seen once
COUNTED_IMAGES = 1_000  # the first of the test split
RECIPE = {  # changes of the recipe for CIFAR-10
    "epochs": "1",
    "batch_size": "64",
    "lr": "0.1",
    "warmup_epochs": "0.1",
    "schedule": "cosine",
    "whiten": "false",
    "crop_padding": "4",
    "crop_mode": "zeros",
    "flip": "true",
    "flip_alternating": "false",
}


@dataclass(frozen=True)
class Network:
    """A contender: its title in the tables, its name in the zoo, and its links."""

    title: str
    name: str
    links: bool | None = None  # densely additive; None: as the name says

    def create(self) -> DANet:
        options: dict[str, Any] = {} if self.links is None else {"links": self.links}
        return zoo.create(f"{self.name}.cifar10", **options)


NETWORKS: dict[str, Network] = {
    "danet20-t4": Network("order a: LIF-Conv-BN", "danet20-t4"),
    "danet20b-t4": Network("order b: BN-LIF-Conv", "danet20b-t4"),
    "danet20c-t4": Network("order c: Conv-BN-LIF", "danet20c-t4"),
    "danet20d-t4": Network("order d: as a, without block shortcuts", "danet20d-t4"),
    "danet20-t4-without-links": Network("order a", "danet20-t4", links=False),
    "danet20b-t4-without-links": Network("order b", "danet20b-t4", links=False),
    "danet20c-t4-without-links": Network("order c", "danet20c-t4", links=False),
    "danet20d-t4-without-links": Network("order d, a plain network", "danet20d-t4", links=False),
    "danet20-t1": Network("T = 1", "danet20-t1"),
    "danet20-t2": Network("T = 2", "danet20-t2"),
    "danet20-t8": Network("T = 8", "danet20-t8"),
    "spiking-resnet20-t4": Network("Spiking ResNet", "spiking-resnet20-t4"),
    "sew-resnet20-t4": Network("SEW-ResNet, ADD", "sew-resnet20-t4"),
    "ms-resnet20-t4": Network("MS-ResNet", "ms-resnet20-t4"),
}
PUBLISHED = "danet20-t4 danet20c-t4 spiking-resnet20-t4 sew-resnet20-t4 ms-resnet20-t4"
TABLES: dict[str, list[str]] = {
    "Block orders, with and without densely additive links": [
        f"danet20{order}-t4{links}"
        for order in ("", "b", "c", "d")
        for links in ("", "-without-links")
    ],
    "Time steps": ["danet20-t1", "danet20-t2", "danet20-t4", "danet20-t8"],
    "Beside the published connections": PUBLISHED.split(),
}


def main() -> None:
    """Run the command that the command line names."""
    args = parse_arguments()
    if args.command == "table":
        sys.exit(write_tables(check=args.check))
    if args.command == "one":
        train_network(args.network, args.seed, args.data, args.runs)
    else:
        sys.exit(train_all(args.networks or list(NETWORKS), args.seeds, args.data, args.runs))


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line; its `command` is "train", "one" or "table"."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("train")
    sub.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"all, or any of {', '.join(NETWORKS)}"
    )
    sub.add_argument("--data", required=True, metavar="FOLDER")
    sub.add_argument("--runs", type=Path, default=RUNS, metavar="FOLDER", help="of checkpoints")
    sub.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="run seeds 0 to N - 1 (default: 1)"
    )
    sub = commands.add_parser("one")  # a process that `train` starts
    sub.add_argument("network", choices=list(NETWORKS))
    sub.add_argument("seed", type=int)
    sub.add_argument("data")
    sub.add_argument("runs", type=Path)
    sub = commands.add_parser("table")
    sub.add_argument(
        "--check", action="store_true", help="exit with 1 if the page differs from the logs"
    )
    args = parser.parse_args()
    if unknown := set(getattr(args, "networks", [])) - set(NETWORKS):
        parser.error(f"unknown network {min(unknown)!r}; valid are {', '.join(NETWORKS)}")
    return args


def train_all(networks: list[str], seeds: int, data: str, runs: Path) -> int:
    """Train what has no log yet, and return the highest exit status.

    Two run at a time: small networks leave a second core idle. All networks have one seed before
    the next seed begins.
    """
    networks = sorted(networks, key=lambda network: "-t8" not in network)  # the slowest first
    command = [sys.executable, __file__, "one"]
    commands = [
        [*command, network, str(seed), data, str(runs)]
        for seed in range(seeds)
        for network in networks
        if not log_path(network, seed).exists()
    ]
    with ThreadPoolExecutor(2) as pool:
        return max((done.returncode for done in pool.map(subprocess.run, commands)), default=0)


def log_path(network: str, seed: int) -> Path:
    return LOGS / f"{network}-seed{seed}.json"


def train_network(network: str, seed: int, data: str, runs: Path) -> None:
    """Train a network, count its operations on test images, and write its log."""
    torch.set_num_threads(1)
    recipe = replace(Recipe.load("cifar10", RECIPE), source="", seed=seed)
    torch.manual_seed(recipe.seed)
    model = NETWORKS[network].create()
    spec = model.known_origin.data
    training, test = load_images(spec, "train", data), load_images(spec, "test", data)
    first = Images(training.pixels[:TRAINING_IMAGES], training.labels[:TRAINING_IMAGES])
    run = runs / f"{network}-seed{seed}"
    train(model, TrainingRun(recipe, first, test, run))
    x, labels = normalise(test.pixels[:COUNTED_IMAGES], spec), test.labels[:COUNTED_IMAGES]
    report = estimate(model.cpu(), x, labels, profile="45nm-fp32", batch=100).to_json()
    metrics = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in metrics]
    log = {
        "network": network,
        "model": model.config.to_dict(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": recipe.to_dict(),
        "images": TRAINING_IMAGES,
        "epochs": epochs,
        "synops": report["counts"]["acs"] / COUNTED_IMAGES,
        "firing_rate": report["firing_rate"],
        "machine": f"one core of {processor()}",
        "torch": torch.__version__,
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    write_text(log_path(network, seed), json.dumps(log, indent=1) + "\n")
    print(f"{network}, seed {seed}: top-1 {epochs[-1]['test_top1']:.2%}", flush=True)


def load_images(spec: DatasetSpec, split: Literal["train", "test"], source: str) -> Images:
    """Return a split that fits into memory."""
    images = load_split(spec, split, source, workers=0)
    assert isinstance(images, Images)
    return images


def write_tables(*, check: bool) -> int:
    """Write the tables and the picture of the page; or, to check, only compare the tables.

    Returns the exit status: 1 if a check finds another text than the logs give.
    """
    logs: dict[str, list[dict[str, Any]]] = {network: [] for network in NETWORKS}
    for path in sorted(LOGS.glob("*.json")):
        log = json.loads(path.read_text(encoding="utf-8"))
        logs[log["network"]].append(log)
    figures = {network: Figures.of(runs) for network, runs in logs.items() if runs}
    tables = "\n\n".join(
        table_section(title, [figures[network] for network in networks if network in figures])
        for title, networks in TABLES.items()
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    text = f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}"
    if check:
        return int(page != text)
    PAGE.write_text(text, encoding="utf-8")
    draw(list(figures.values()))
    return 0


@dataclass(frozen=True)
class Figures:
    """The figures of a network, over its seeds."""

    network: str
    links: bool
    steps: int
    parameters: int
    top1: tuple[float, ...]  # of each seed
    loss: float  # in training; this and the following are means
    synops: float
    firing_rate: float
    minutes: float

    @classmethod
    def of(cls, logs: list[dict[str, Any]]) -> "Figures":
        ends, (first, *_) = [log["epochs"][-1] for log in logs], logs
        return cls(
            network=first["network"],
            links=first["model"]["links"],
            steps=first["model"]["steps"],
            parameters=first["parameters"],
            top1=tuple(end["test_top1"] for end in ends),
            loss=mean(end["train_loss"] for end in ends),
            synops=mean(log["synops"] for log in logs),
            firing_rate=mean(log["firing_rate"] for log in logs),
            minutes=mean(sum(line["seconds"] for line in log["epochs"]) / 60 for log in logs),
        )


COLUMNS = (
    "network", "links", "T", "parameters", "top-1", "seeds", "training loss", "SynOps of an image",
    "firing rate", "minutes",
)  # fmt: skip


def table_section(title: str, rows: list[Figures]) -> str:
    """Return a heading and its table; `±` is the standard deviation over seeds."""
    lines = [f"### {title}", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        network = NETWORKS[row.network]
        spread = f" ± {100 * stdev(row.top1):.2f}" if len(row.top1) > 1 else ""
        cells = (
            f"{network.title} (`{network.name}`)",
            "yes" if row.links else "no",
            str(row.steps),
            f"{row.parameters:,}",
            f"{mean(row.top1):.2%}{spread}",
            str(len(row.top1)),
            f"{row.loss:.3f}",
            f"{row.synops / 1e6:.1f} M",
            f"{row.firing_rate:.1%}",
            f"{row.minutes:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[Figures]) -> None:
    """Draw top-1 against SynOps: a mark for each network, with the range of its seeds."""
    figure, (axes,) = new_figure(height=5)
    points = []
    for linked, mark in ((True, "o"), (False, "s")):
        chosen = [row for row in rows if row.links is linked]
        x = [row.synops / 1e6 for row in chosen]
        y = [100 * mean(row.top1) for row in chosen]
        below = [100 * (mean(row.top1) - min(row.top1)) for row in chosen]
        above = [100 * (max(row.top1) - mean(row.top1)) for row in chosen]
        label = "with densely additive links" if linked else "without"
        axes.errorbar(x, y, yerr=[below, above], fmt=mark, capsize=3, linewidth=1, label=label)
        names = [row.network.removesuffix("-without-links") for row in chosen]
        points += zip(x, y, names, strict=True)
    axes.margins(x=0.12)
    axes.set_xlabel("synaptic operations of an image, millions")
    axes.set_ylabel("top-1 on 10,000 test images, %")
    axes.legend(frameon=False, loc="lower right")
    label_points(axes, points)
    figure.savefig(PICTURE, metadata={"Software": None})


if __name__ == "__main__":
    main()
