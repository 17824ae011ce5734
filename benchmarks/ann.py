"""Networks that were trained as ANNs (QCFS): how near their spikes come, at several T.

    python benchmarks/ann.py RUN [--data SOURCE] [--steps 2 4 8 16]
    python benchmarks/ann.py speed [NAME ...]

`RUN` is the folder of a run with `activation = "qcfs"`. Its network fires for each T, with half a
threshold over that T, on the whole split that the run evaluates; the ANN's accuracy is the run's.
`speed` times steps of training as an ANN and of the spikes themselves, by the neurons of the name,
which take turns: medians of processor time, one thread.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
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
from zoo.training.data import Images
from zoo.training.evaluate import count_correct
from zoo.training.qcfs import norms_before
from zoo.training.run import load_data
from zoo.training.train import Trainer, TrainingRun

ROUNDS, BATCH = 9, 64


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


def speed(names: list[str]) -> None:
    """Print what a training image costs as an ANN, and of spikes at the T of the name."""
    torch.set_num_threads(1)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            trainers = [_trainer(name, kind, Path(folder) / kind) for kind in ("qcfs", "spikes")]
            seconds: list[list[float]] = [[], []]
            for number in range(1 + ROUNDS):
                for trainer, times in zip(trainers, seconds, strict=True):
                    pixels, labels = next(trainer.data.training(trainer.sampler, number))
                    began = time.process_time()
                    trainer._update(pixels, labels)
                    times.append(time.process_time() - began)
                    trainer.step += 1
        ann, spikes = (1000 * statistics.median(times[1:]) / BATCH for times in seconds)
        said = f"{ann:.2f} ms an image as an ANN, {spikes:.2f} ms of spikes: {ann / spikes:.0%}"
        print(f"{name}: {said}")


def _trainer(name: str, activation: str, folder: Path) -> Trainer:
    model = zoo.create(name, **({"beta": 1.0, "reset": "subtract"} if activation == "qcfs" else {}))
    data = model.known_origin.data
    values = {"dataset": data.tag, "epochs": 1, "batch_size": BATCH, "activation": activation}
    shape = (BATCH * (ROUNDS + 1), data.channels, data.size, data.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    images = Images(pixels, torch.arange(len(pixels)) % data.num_classes)
    recipe = Recipe.from_dict(values)
    trainer = Trainer(model, TrainingRun(recipe, images, images, folder))
    set_steps(trainer.net, recipe.steps_at(0, model.config.steps))
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, or the word speed")
    parser.add_argument("names", nargs="*", default=["spiking-resnet20-t4.fmnist"])
    parser.add_argument("--data")
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    options = parser.parse_args()
    if options.run == Path("speed"):
        speed(options.names)
        return
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


if __name__ == "__main__":
    try:
        main()
    except (ZooError, OSError) as error:
        sys.exit(f"ann.py: {error}")
