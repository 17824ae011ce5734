"""Small training runs, one after the other, in a process of their own, which prints each step.

It is started as `python small.py FOLDER [--shard] [RECIPE as JSON] ...`, and the runs lie in
FOLDER/0, FOLDER/1, ...; torchrun starts several of them.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

from zoo.danet import DANet, DANetConfig
from zoo.training.config import Recipe
from zoo.training.data import Images
from zoo.training.train import RunOptions, TrainingRun, train

# In bfloat16, which some CPUs would choose, two processes round otherwise than one.
RECIPE = {"dataset": "fmnist", "epochs": 2, "batch_size": 8, "lr": 0.05, "bf16": False}


def data() -> Images:
    """Forty noisy images of five brightnesses."""
    labels = torch.arange(40) % 5
    noise = torch.randint(
        0, 128, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Images((labels * 25).to(torch.uint8)[:, None, None, None] + noise, labels)


def network() -> DANet:
    """The network before its training, always the same."""
    torch.manual_seed(7)
    config = DANetConfig(
        depths=(1, 2),
        widths=(16, 32),
        stem="small",
        steps=2,
        in_channels=1,
        num_classes=5,
        threshold=0.5,  # so low that the last neurons fire from the start
    )
    return DANet(config)


def main(run: Path, shard: bool, recipe: Recipe) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    model = network()

    def say(step: int, total: int, shown: dict[str, float]) -> None:
        print(step, flush=True)

    options = RunOptions(shard=shard, save_every=1, progress=say)
    last = train(model, TrainingRun(recipe, data(), data(), run, options=options))
    if last and Path(run / "metrics.jsonl").exists():
        torch.save(model.state_dict(), run / "weights.pt")


if __name__ == "__main__":
    folder, *recipes = [word for word in sys.argv[1:] if word != "--shard"]
    for number, text in enumerate(recipes or ["{}"]):
        recipe = Recipe.from_dict(RECIPE | json.loads(text))
        main(Path(folder) / str(number), "--shard" in sys.argv, recipe)
