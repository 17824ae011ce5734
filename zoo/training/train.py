"""The training loop. Everything random and every rate follows from the seed and the global step, so a run that was killed
and resumed is the run that was never killed.

A run's folder holds `recipe.json`, `checkpoint.pt` (written beside and renamed), `metrics.jsonl`, and at the end the model folder.
"""

import json
import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.danet import DANet
from zoo.datasets import DATASETS
from zoo.errors import ConfigError, WeightsError, ZooError
from zoo.images import normalise
from zoo.training import augment
from zoo.training.config import Recipe
from zoo.training.data import Images
from zoo.training.evaluate import top1

__all__ = ["train"]

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 120

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, what to show


def train(
    model: DANet, recipe: Recipe, data: Images, test: Images, run: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Train `model` in place, resuming from `run` if a checkpoint lies there; returns the last line of the metrics.

    Raises `ZooError` if the loss stops being finite, `ConfigError` if `run` belongs to another recipe.
    """
    run.mkdir(parents=True, exist_ok=True)
    resolved = {"model": model.config.to_dict(), "recipe": recipe.to_dict(), "torch": torch.__version__}
    _claim(run / "recipe.json", resolved)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
    optimizer = torch.optim.SGD(_groups(model, recipe.weight_decay), lr=recipe.lr, momentum=recipe.momentum, nesterov=True)
    per_epoch = len(data.labels) // recipe.batch_size
    if not per_epoch:
        raise ConfigError(f"recipe: batch_size = {recipe.batch_size} is more than the {len(data.labels)} training images")
    total = per_epoch * recipe.epochs
    step, seen = _resume(run, model, optimizer)
    started = saved = time.monotonic()
    last: dict[str, Any] = {}

    while step < total:
        pixels, labels = _batch(data, recipe, step, per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, step, per_epoch, total)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=recipe.bf16):
            logits = model(pixels)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        if not math.isfinite(loss.item()):
            raise ZooError(
                f"the loss is {loss.item()} at step {step} (epoch {step // per_epoch}): lower the rate with --set lr=..."
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1

        seen["loss"] += loss.item() * len(labels)
        seen["correct"] += float((logits.argmax(1) == labels).sum())
        seen["images"] += len(labels)
        if progress:
            progress(step, total, {"loss": seen["loss"] / seen["images"], "top1": seen["correct"] / seen["images"]})
        if step % per_epoch == 0:
            last = {"epoch": step // per_epoch, "step": step, "lr": optimizer.param_groups[0]["lr"]}
            last |= {"train_loss": seen["loss"] / seen["images"], "train_top1": seen["correct"] / seen["images"]}
            last |= {"test_top1": top1(model.eval(), test, DATASETS[recipe.dataset]), "images": int(seen["images"])}
            last |= {"seconds": round(time.monotonic() - started, 1)}
            model.train()
            with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(last) + "\n")
            log.info("%s", last)
            seen, started = dict.fromkeys(seen, 0.0), time.monotonic()
        if step % per_epoch == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(run, model, optimizer, step, seen)
            saved = time.monotonic()
    model.eval()
    return last or _last_line(run / "metrics.jsonl")


def _batch(data: Images, recipe: Recipe, step: int, per_epoch: int) -> tuple[Tensor, Tensor]:
    """The batch of a global step: the epoch's own shuffle, the step's own augmentation."""
    epoch, position = divmod(step, per_epoch)
    shuffle = torch.randperm(len(data.labels), generator=_generator(recipe.seed, epoch))
    index = shuffle[position * recipe.batch_size : (position + 1) * recipe.batch_size]
    spec, generator = DATASETS[recipe.dataset], _generator(recipe.seed, step)
    images = normalise(data.pixels[index], spec)
    if recipe.crop_padding:
        images = augment.crop(images, recipe.crop_padding, generator)
    if recipe.flip:
        images = augment.flip(images, generator)
    if recipe.erase:
        images = augment.erase(images, recipe.erase, generator)
    return images.contiguous(memory_format=torch.channels_last), data.labels[index]


def _generator(seed: int, position: int) -> torch.Generator:
    """torch's CPU generator looks at 32 bits of a seed, so the recipe's is spread over these (Knuth's multiplicative hash)."""
    return torch.Generator().manual_seed((seed * 2_654_435_761 + position) % 2**32)


def _rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    warmup = recipe.warmup_epochs * per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _groups(model: nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Weights of two or more dimensions decay; normalisation, bias and neuron parameters do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    yield {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}


def _claim(path: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved recipe, or find that this folder already belongs to the same one."""
    text = json.dumps(resolved, indent=2) + "\n"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            raise ConfigError(f"{path} is not a recipe that a run wrote: delete it, or name a new folder with --run") from None
        if {**before, "torch": None} != {**json.loads(text), "torch": None}:
            raise ConfigError(f"{path.parent} holds a run of another recipe: resume that one, or name a new folder with --run")
    else:
        path.write_text(text, encoding="utf-8")


def _save(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, seen: dict[str, float]) -> None:
    beside = run / "checkpoint.tmp"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seen": seen}, beside)
    beside.replace(run / "checkpoint.pt")


def _resume(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, float]]:
    """The step to go on with, and what the epoch has seen so far. Metrics of steps that will be done again are dropped."""
    path, metrics = run / "checkpoint.pt", run / "metrics.jsonl"
    step, seen = 0, {"loss": 0.0, "correct": 0.0, "images": 0.0}
    if path.exists():
        try:
            state = torch.load(path, weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            step, seen = state["step"], state["seen"]
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise WeightsError(f"{path} is not a checkpoint of this run ({str(error).splitlines()[0]}): delete it") from None
        log.info("resumed at step %d", step)
    if metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one
        metrics.write_text("".join(line for line in whole if json.loads(line)["step"] <= step), encoding="utf-8")
    return step, seen


def _last_line(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return values
