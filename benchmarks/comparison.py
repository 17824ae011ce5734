"""Which connection, at which T: small networks under one recipe and one budget, side by side.

    python benchmarks/comparison.py train --data FOLDER [--seeds N] [NETWORK ...]    what has no log yet, two at a time, a core each
    python benchmarks/comparison.py table                                            docs/comparison.md, from the logs alone

A run's log, `benchmarks/results/comparison/NETWORK-seedN.json`, holds the recipe, each epoch's
line, and counts on test images. What was stopped goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import zoo
from export.energy import estimate
from zoo.images import normalise
from zoo.processor import processor
from zoo.training.config import Recipe
from zoo.training.data import Images, load_split
from zoo.training.train import TrainingRun, train

LOGS = Path(__file__).parent / "results" / "comparison"
PAGE = Path(__file__).parent.parent / "docs" / "comparison.md"
PICTURE = PAGE.with_suffix(".png")
BEGIN, END = (
    "<!-- tables: written by `python benchmarks/comparison.py table` -->",
    "<!-- end of tables -->",
)
IMAGES = 20_000  # of the training split, its first, each seen once
COUNTED = 1_000  # of the test split, its first
RECIPE = {
    "epochs": "1", "batch_size": "64", "lr": "0.1", "warmup_epochs": "0.1", "schedule": "cosine", "whiten": "false",
    "crop_padding": "4", "crop_mode": "zeros", "flip": "true", "flip_alternating": "false",
}  # fmt: skip  # changes of the recipe for CIFAR-10


@dataclass(frozen=True)
class Network:
    """A contender: what it is called here, its name in the zoo, and what is changed of that."""

    title: str
    name: str
    links: bool | None = None  # densely additive; None: as the name says

    def create(self) -> Any:
        return zoo.create(
            f"{self.name}.cifar10", **({} if self.links is None else {"links": self.links})
        )


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
TABLES: dict[str, list[str]] = {
    "Block orders, with and without densely additive links": [
        f"danet20{order}-t4{links}"
        for order in ("", "b", "c", "d")
        for links in ("", "-without-links")
    ],
    "Time steps": ["danet20-t1", "danet20-t2", "danet20-t4", "danet20-t8"],
    "Beside the published connections": [
        "danet20-t4",
        "danet20c-t4",
        "spiking-resnet20-t4",
        "sew-resnet20-t4",
        "ms-resnet20-t4",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("train")
    sub.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"all, or any of {', '.join(NETWORKS)}"
    )
    sub.add_argument("--data", required=True, metavar="FOLDER")
    sub.add_argument(
        "--runs",
        type=Path,
        default=Path("runs/comparison"),
        metavar="FOLDER",
        help="where checkpoints lie",
    )
    sub.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="0 to N - 1, for each network (default: 1)",
    )
    sub.set_defaults(
        command=lambda args: together(
            args.networks or list(NETWORKS), args.seeds, args.data, args.runs
        )
    )
    sub = commands.add_parser("one")  # a process of `train`
    sub.add_argument("network", choices=list(NETWORKS))
    sub.add_argument("seed", type=int)
    sub.add_argument("data")
    sub.add_argument("runs", type=Path)
    sub.set_defaults(command=lambda args: one(args.network, args.seed, args.data, args.runs))
    sub = commands.add_parser("table")
    sub.add_argument(
        "--check",
        action="store_true",
        help="exit status 1 if the page says something else than the logs",
    )
    sub.set_defaults(command=lambda args: table(check=args.check))
    args = parser.parse_args()
    if unknown := set(getattr(args, "networks", [])) - set(NETWORKS):
        parser.error(f"unknown network {min(unknown)!r}; valid are {', '.join(NETWORKS)}")
    sys.exit(args.command(args))


def together(networks: list[str], seeds: int, data: str, runs: Path) -> int:
    """Two at a time: small networks leave a second core idle. A seed is done with before the next
    one begins.
    """
    # what takes longest first
    networks = sorted(networks, key=lambda network: "-t8" not in network)
    missing = [
        (network, seed)
        for seed in range(seeds)
        for network in networks
        if not log_of(network, seed).exists()
    ]
    with ThreadPoolExecutor(2) as pool:
        commands = [
            [sys.executable, __file__, "one", network, str(seed), data, str(runs)]
            for network, seed in missing
        ]
        return max((done.returncode for done in pool.map(subprocess.run, commands)), default=0)


def log_of(network: str, seed: int) -> Path:
    return LOGS / f"{network}-seed{seed}.json"


def one(network: str, seed: int, data: str, runs: Path) -> int:
    """Train a network, and write its log."""
    torch.set_num_threads(1)
    recipe = replace(Recipe.load("cifar10", RECIPE), source="", seed=seed)
    torch.manual_seed(recipe.seed)
    model = NETWORKS[network].create()
    spec = model.origin.data
    parts = {}
    for split in ("train", "test"):
        whole = load_split(spec, split, data, workers=0)
        assert isinstance(whole, Images)
        parts[split] = whole
    first = Images(parts["train"].pixels[:IMAGES], parts["train"].labels[:IMAGES])
    run = runs / f"{network}-seed{seed}"
    train(model, TrainingRun(recipe, first, parts["test"], run))
    x, labels = normalise(parts["test"].pixels[:COUNTED], spec), parts["test"].labels[:COUNTED]
    counted = estimate(model.cpu(), x, labels, profile="45nm-fp32", batch=100).to_json()
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    log = {
        "network": network,
        "model": model.config.to_dict(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": recipe.to_dict(),
        "images": IMAGES,
        "epochs": lines,
        "synops": counted["counts"]["acs"] / COUNTED,
        "firing_rate": counted["firing_rate"],
        "machine": f"one core of {processor()}",
        "torch": torch.__version__,
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    path = log_of(network, seed)
    path.with_suffix(".tmp").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".tmp").replace(path)
    print(f"{network}, seed {seed}: top-1 {lines[-1]['test_top1']:.2%}", flush=True)
    return 0


def table(*, check: bool) -> int:
    """Write the tables between the page's marks, or only compare them with what stands there."""
    logs: dict[str, list[dict[str, Any]]] = {network: [] for network in NETWORKS}
    for path in sorted(LOGS.glob("*.json")):
        log = json.loads(path.read_text(encoding="utf-8"))
        logs[log["network"]].append(log)
    found = {network: Figures.of(runs) for network, runs in logs.items() if runs}
    text = "\n\n".join(
        section(title, [found[network] for network in rows if network in found])
        for title, rows in TABLES.items()
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    wanted = f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"
    if check:
        return int(page != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    picture(list(found.values()))
    return 0


@dataclass(frozen=True)
class Figures:
    """A network over its seeds."""

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


def section(title: str, rows: list[Figures]) -> str:
    """`±` is the standard deviation over seeds."""
    lines = [
        f"### {title}",
        "",
        "| network | links | T | parameters | top-1 | seeds | training loss | SynOps of an image | firing rate | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        network = NETWORKS[row.network]
        cells = (
            f"{network.title} (`{network.name}`)",
            "yes" if row.links else "no",
            str(row.steps),
            f"{row.parameters:,}",
            f"{mean(row.top1):.2%}"
            + (f" ± {100 * stdev(row.top1):.2f}" if len(row.top1) > 1 else ""),
            str(len(row.top1)),
            f"{row.loss:.3f}",
            f"{row.synops / 1e6:.1f} M",
            f"{row.firing_rate:.1%}",
            f"{row.minutes:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(rows: list[Figures]) -> None:
    """Top-1 against SynOps, a mark for each network, with the range of its seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for linked, mark in ((True, "o"), (False, "s")):
        chosen = [row for row in rows if row.links is linked]
        x, y = [row.synops / 1e6 for row in chosen], [100 * mean(row.top1) for row in chosen]
        band = [
            [abs(100 * edge(row.top1) - at) for row, at in zip(chosen, y, strict=True)]
            for edge in (min, max)
        ]
        label = "with densely additive links" if linked else "without"
        axes.errorbar(x, y, yerr=band, fmt=mark, capsize=3, linewidth=1, label=label)
        for row, *point in zip(chosen, x, y, strict=True):
            name = row.network.removesuffix("-without-links")
            axes.annotate(
                name, (point[0], point[1]), xytext=(6, -3), textcoords="offset points", fontsize=8
            )
    axes.margins(x=0.12)
    axes.set_xlabel("synaptic operations of an image, millions")
    axes.set_ylabel("top-1 on 10,000 test images, %")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Software": None})


if __name__ == "__main__":
    main()
