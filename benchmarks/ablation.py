"""Which parts of a recipe pay: top-1 of runs that differ in one thing.

    python benchmarks/ablation.py --data SOURCE [--network NAME] [--config KEY=VALUE ...]
                                  [--init FOLDER] [--epochs 2] [--seeds 2] [VARIANT ...]

The variants are of the fast recipe, or of ways to make a network smaller: their runs start from
another run's model (`--init`, itself trained with `validation=0.1`), and their SynOps are counted
on the bundled images of the data. Top-1 is measured on held-out training images, once for each
seed. Every run is a `zoo train` with `validation=0.1`, a single thread, and a folder in
`runs/ablation`, where it goes on if it was stopped. One runs on each core at a time. What is
finished goes into `results/ablation.json`; without `--data` it is printed.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import zoo
from export.energy import estimate
from zoo.files import write_text
from zoo.integrity import digest
from zoo.processor import processor
from zoo.samples import samples
from zoo.training.pruning import zeros

RESULTS = Path(__file__).with_name("results") / "ablation.json"
WRITING = Lock()
BEFORE = (
    "lr=0.1 schedule=cosine warmup_epochs=1 whiten=false crop_padding=4 crop_mode=zeros "
    "flip_alternating=false flip=true"
)
VARIANTS = {
    "fast": "",
    "before": BEFORE,
    "rate 0.15": "lr=0.15",
    "rate 0.6": "lr=0.6",
    "rate 0.9": "lr=0.9",
    "cosine": "schedule=cosine",
    "not whitened": "whiten=false",
    "crop 4": "crop_padding=4",
    "crop with zeros": "crop_mode=zeros",
    "independent flips": "flip_alternating=false flip=true",
    "label smoothing 0": "label_smoothing=0.0",
    "label smoothing 0.2": "label_smoothing=0.2",
    "bias rate 16": "norm_bias_rate=16.0",
    "small images first": "sizes=[[0,24],[1,32]]",
    "batch 64": "batch_size=64 lr=0.15",
    "decay 1e-3": "weight_decay=1e-3",
    "averaged": "ema=0.99",
}
TUNED = "lr=0.1 schedule=linear"
SMALLER = {
    "as before": TUNED,
    "90 % zeros": f"{TUNED} prune=0.9",
    "90 % zeros by layer": f"{TUNED} prune=0.9 prune_scope=layer",
    "90 % zeros by SynOps": f"{TUNED} prune=0.9 prune_scope=synops",
    "90 % zeros by Grad R": f"{TUNED} prune=0.9 prune_method=gradr",
    "8 bits": f"{TUNED} weight_bits=8",
    "1 bit": f"{TUNED} weight_bits=1",
    "SynOps 0.5": f"{TUNED} synops_weight=0.5",
    "SynOps 1": f"{TUNED} synops_weight=1",
    "SynOps 2": f"{TUNED} synops_weight=2",
    "spikes 0.5": f"{TUNED} spikes_weight=0.5",
    "spikes 1": f"{TUNED} spikes_weight=1",
    "spikes 2": f"{TUNED} spikes_weight=2",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Ablate the fast recipe, or ways to a smaller network, on held-out images."
    )
    valid = [*VARIANTS, *SMALLER]
    text = f"of {', '.join(valid)} (default: those of the fast recipe, with --init the others)"
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=text.replace("%", "%%"))
    parser.add_argument("--init", metavar="FOLDER", help="the model that every run starts from")
    parser.add_argument(
        "--data", metavar="SOURCE", help="where the images lie; without it nothing is run"
    )
    parser.add_argument("--network", default="danet20-t1.cifar10")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="runs side by side (default: one for each core)",
    )
    options = parser.parse_args()
    if unknown := set(options.variants) - set(valid):
        parser.error(f"unknown variant {min(unknown)!r}; valid are {', '.join(valid)}")
    if options.init and not held_out(Path(options.init)):
        parser.error(f"--init {options.init} was not trained with validation=0.1")
    variants = options.variants or (SMALLER if options.init else VARIANTS)
    if options.data:
        runs = [(variant, seed) for seed in range(options.seeds) for variant in variants]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda run: train(*run, options), runs))
    print_table()


def train(variant: str, seed: int, options: argparse.Namespace) -> None:
    """Run one variant to its end, and add it to the results."""
    title = " ".join([options.network, *options.config])
    if options.init:
        origin = zoo.load(options.init).known_origin
        title += f" from weights {digest(origin.weights)[:8]}"
    run = Path("runs/ablation") / f"{title}-{options.epochs}" / f"{variant}-{seed}"
    sets = [
        "validation=0.1",
        f"epochs={options.epochs}",
        f"seed={seed}",
        *(VARIANTS | SMALLER)[variant].split(),
    ]
    config = ["--config", *options.config] if options.config else []
    command = [
        sys.executable,
        "-m",
        "zoo",
        "train",
        options.network,
        "--data",
        options.data,
        "--run",
        str(run),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log").open("a", encoding="utf-8") as log:
        command += ["--init", options.init] if options.init else []
        command += [*config, "--evaluate-every", str(options.epochs), "--set", *sets]
        subprocess.run(command, env=environment, check=True, stdout=log, stderr=log)
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    # not known of epochs that an older version trained
    seconds = [line.get("core_seconds") for line in lines]
    result = {
        "network": title,
        "epochs": options.epochs,
        "variant": variant,
        "seed": seed,
        "processor": processor(),
        "top1": lines[-1]["validation_top1"],
        "core_minutes": None if None in seconds else round(sum(seconds) / 60, 1),
    }
    if options.init:
        result |= counted(run / "model")
    with WRITING:  # of two runs that end together neither overwrites the other's result
        results = read_results()
        results[f"{title}, {options.epochs} epochs: {variant}, seed {seed}"] = result
        write_text(RESULTS, json.dumps({"runs": results}, indent=2) + "\n")


def held_out(folder: Path) -> bool:
    """Tell whether a model has not seen the images that are held out."""
    path = folder / "recipe.json"
    return path.is_file() and json.loads(path.read_text())["recipe"]["validation"] == 0.1


def counted(folder: Path) -> dict[str, float]:
    """Return the SynOps of a bundled image and the share of zeros of a finished model."""
    model = zoo.load(folder)
    pixels, _ = samples(model.known_origin.data.images.tag)
    report = estimate(model, model.transform(list(pixels)))
    return {"synops": report.total("acs") / report.images, "zeros": zeros(model)}


def read_results() -> dict[str, dict[str, Any]]:
    """Return the results so far, by what was run."""
    runs: dict[str, dict[str, Any]] = (
        json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else {}
    )
    return runs


def print_table() -> None:
    """Print the accuracy of each variant, seed by seed."""
    runs = read_results().values()
    for title in dict.fromkeys((run["network"], run["epochs"]) for run in runs):
        print(f"\n{title[0]}, {title[1]} epochs: top-1 on held-out training images, by seed")
        of_title = [run for run in runs if (run["network"], run["epochs"]) == title]
        for variant in dict.fromkeys(run["variant"] for run in of_title):
            scores = "  ".join(
                f"{run['top1']:.2%}"
                + (f" at {run['synops'] / 1e6:.2f} M SynOps" if "synops" in run else "")
                for run in of_title
                if run["variant"] == variant
            )
            print(f"  {variant:22} {scores}")


if __name__ == "__main__":
    main()
