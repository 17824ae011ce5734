"""Networks that were trained as ANNs (QCFS): how near their spikes come, at several T.

    python benchmarks/ann.py RUN [--data SOURCE] [--steps 2 4 8 16] [--against RUN]

`RUN` is the folder of a run with `activation = "qcfs"`. Its network fires for each T, with half a
threshold over that T, on the whole split that the run evaluates; the ANN's accuracy is the run's.
`--against` is a run that trained the spikes themselves: what an image cost there and here.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import zoo
from zoo.danet import DANet, set_steps
from zoo.errors import ConfigError, ZooError
from zoo.files import read_json
from zoo.neurons import Lif
from zoo.processor import processor
from zoo.training.config import Recipe
from zoo.training.evaluate import count_correct
from zoo.training.qcfs import norms_before
from zoo.training.run import load_data


@torch.no_grad()
def fire_for(model: DANet, steps: int) -> None:
    """Let a network that was settled for its T take `steps`."""
    change = 1 / steps - 1 / model.config.steps
    for lif, norm in norms_before(model).items():
        layer = model.get_submodule(lif)
        assert isinstance(layer, Lif)
        model.get_parameter(f"{norm}.bias").add_(layer.neuron.threshold / 2 * change)
    set_steps(model, steps)


def lines(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log."""
    return list(map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()))


def milliseconds(run: Path) -> float:
    """Return the processor time of a training image."""
    log = lines(run)
    return 1000 * sum(line["core_seconds"] for line in log) / sum(line["images"] for line in log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    recipe = Recipe.from_dict(read_json(options.run / "recipe.json")["recipe"])
    if recipe.activation != "qcfs":
        raise ConfigError(f"{options.run} trained spikes: a run with activation=qcfs is needed")
    model = zoo.load(str(options.run / "model"))
    data = model.known_origin.data
    if options.data:
        recipe = Recipe.from_dict(recipe.to_dict() | {"source": options.data})
    split = load_data(data, recipe, "test", model.config.steps)
    ann = 100 * lines(options.run)[-1]["ann_top1"]
    name = model.known_origin.name
    print(f"{name}, {recipe.levels} levels; torch {torch.__version__}, {processor()}")
    print(f"| T | top-1, {recipe.evaluated} | below its ANN ({ann:.2f} %) |\n|---|---|---|")
    for steps in options.steps:
        fire_for(model, steps)
        with torch.inference_mode():
            correct, images = count_correct(model, split, data)
        top1 = 100 * correct / images
        print(f"| {steps} | {top1:.2f} % | {ann - top1:.2f} |", flush=True)
    if options.against:
        here, there = milliseconds(options.run), milliseconds(options.against)
        print(f"{here:.2f} ms of a core for a training image, {here / there:.0%} of {there:.2f}")


if __name__ == "__main__":
    try:
        main()
    except (ZooError, OSError) as error:
        sys.exit(f"ann.py: {error}")
