"""The training loop. Everything random and every rate follows from the seed and the global step, so a run that was killed
and resumed is the run that was never killed.

A run's folder holds `recipe.json`, the last two checkpoints, `metrics.jsonl`, TensorBoard events, and at the end the model folder.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.blocks import Block
from zoo.danet import DANet, set_steps
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ZooError
from zoo.images import normalise
from zoo.training import augment, checkpoint, parallel
from zoo.training.config import Recipe
from zoo.training.data import Plan, Split, generator
from zoo.training.ema import Average
from zoo.training.evaluate import arrange, correct
from zoo.training.losses import objective
from zoo.training.policies import auto_augment, rand_augment
from zoo.training.watch import Watch, firing

__all__ = ["Progress", "Teacher", "train"]

LOOK = 20  # steps between two looks at the loss on a GPU, where each look waits for all that was sent there; 1 on a CPU
FIRING = 200  # steps between two looks at the firing rates

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, what to show
Teacher = Callable[[Tensor], Tensor]  # normalised images, as the network takes them -> logits [B, K]


def train(
    model: DANet,
    recipe: Recipe,
    data: Split,
    test: Split,
    run: str | Path,
    *,
    teacher: Teacher | None = None,
    save_every: int = 500,
    evaluate_every: int = 1,
    shard: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train `model`, resuming from `run` if a checkpoint lies there; returns the last line of the metrics.

    `teacher` is distilled from; `save_every` is in steps, `evaluate_every` in epochs, the last of which is always
    evaluated; `shard` divides the weights among the processes. All processes that torchrun started call this together. Raises
    `ZooError` if the loss stops being finite or memory runs out, `ConfigError` if `run` belongs to another recipe or process.
    """
    run = Path(run)
    first = parallel.accelerator(shard=shard).is_main_process
    try:
        with checkpoint.lock(run) if first else nullcontext():
            return _Training(model, recipe, data, test, run, teacher, save_every, evaluate_every, shard, progress).go()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        ways = [f"{word}=true" for word in ("checkpointing", "bf16") if not getattr(recipe, word)]
        ways.append(f"batch_size={max(1, recipe.batch_size // 2)} lr={recipe.lr / 2:g}")
        raise ZooError(f"out of memory with batch_size = {recipe.batch_size}: try --set {', then '.join(ways)}") from None


class _Training:
    """A run: what it needs, and its loop."""

    def __init__(
        self, model: DANet, recipe: Recipe, data: Split, test: Split, run: Path, teacher: Teacher | None, save_every: int,
        evaluate_every: int, shard: bool, progress: Progress | None,
    ) -> None:  # fmt: skip
        self.model, self.recipe, self.run, self.teacher = model, recipe, run, teacher
        self.save_every, self.evaluate_every, self.progress = save_every, evaluate_every, progress
        self.spec = DATASETS[recipe.dataset]
        self.accelerator = a = parallel.accelerator(shard=shard)
        self.device = a.device
        self.plan = Plan(data.images, recipe.batch_size, recipe.seed, a.process_index, a.num_processes)
        self.steps = self.plan.per_epoch * recipe.epochs
        if a.is_main_process:
            run.mkdir(parents=True, exist_ok=True)
            resolved = {"model": model.config.to_dict(), "recipe": recipe.to_dict(), "torch": torch.__version__}
            checkpoint.claim(run / "recipe.json", resolved)
        a.wait_for_everyone()
        self.data, self.test = data.to(self.device), test.to(self.device)

        # `net` is trained; `model` gets its weights, or their average, to be evaluated.
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        self.net = copy.deepcopy(model).train()
        for module in self.net.modules():
            if isinstance(module, Block):
                module.checkpointing = recipe.checkpointing
        self.call = parallel.spread(PerStep(self.net) if recipe.loss == "tet" else self.net, a, shard=shard)
        self.optimizer = torch.optim.SGD(
            _groups(self.net, recipe.weight_decay), lr=recipe.lr, momentum=recipe.momentum, nesterov=True
        )
        self.average = Average(self.net, recipe.ema)

        self.step, self.seen = 0, torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, correct and images of the epoch
        self.failed = torch.full((), -1, device=self.device)  # the first step whose loss was not finite
        saved = checkpoint.latest(run)
        if saved:
            parallel.load_state(self.net, self.optimizer, self.average.values, saved)
            self.step = saved["step"]
            self.seen = torch.tensor(saved["seen"], dtype=torch.float64, device=self.device) / a.num_processes  # an equal share
        self.watch = Watch(run, self.step) if a.is_main_process else None

    def go(self) -> dict[str, Any]:
        recipe, per_epoch = self.recipe, self.plan.per_epoch
        look = 1 if self.device.type == "cpu" else LOOK
        batches = self.data.training(self.plan, self.step)
        started, looked, last = time.monotonic(), (self.step, time.monotonic()), {}
        while self.step < self.steps:
            epoch_ends = (self.step + 1) % per_epoch == 0
            set_steps(self.net, recipe.steps_at(self.step // per_epoch, self.model.config.steps))
            rates = self._update(*next(batches))
            self.step += 1
            saves = epoch_ends or self.step % self.save_every == 0
            if saves or self.step % look == 0:
                now = time.monotonic()
                speed = (self.step - looked[0]) * recipe.batch_size / max(now - looked[1], 1e-9)
                self._look(rates, speed)
                if rates or saves:  # a mean: the step that looks at the firing rates is slower than others
                    looked = self.step, now
            if epoch_ends:
                last = self._end_epoch(started)
                started = time.monotonic()
                looked = self.step, started
            if saves:
                self._save()
        self._give()
        if self.watch:
            last = last or self.watch.last()
            self.watch.close()
        return last

    def _update(self, pixels: Tensor, labels: Tensor) -> dict[str, tuple[float, float, float]]:
        """One step of the optimiser; returns how the layers fired, if it is time to look."""
        recipe, per_epoch = self.recipe, self.plan.per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(recipe, self.step, per_epoch, self.steps)
        a = self.accelerator
        random = generator(recipe.seed, self.step * a.num_processes + a.process_index)
        x, targets = _augmented(pixels, labels, self.spec, self.model.config.num_classes, recipe, random)
        looks = (self.step + 1) % FIRING == 0 or (self.step + 1) % per_epoch == 0
        with firing(self.net if looks and a.is_main_process else nn.Identity()) as rates:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
                logits = self.call(x[: self.net.head.readout.steps] if x.dim() == 5 else x)
                wanted = self._taught(x)
        loss = objective(recipe, logits, targets, wanted)
        self.optimizer.zero_grad(set_to_none=True)
        a.backward(loss)
        if recipe.clip:
            a.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.optimizer.step()
        self.average.update(self.net, self.step)

        loss = loss.detach()
        predicted = (logits.mean(0) if recipe.loss == "tet" else logits).argmax(1)
        right = (predicted == labels).sum()
        self.seen += torch.stack([loss.double() * len(labels), right.double(), right.new_full((), len(labels)).double()])
        self.failed = torch.where((self.failed < 0) & ~loss.isfinite(), self.step, self.failed)
        return rates

    @torch.no_grad()
    def _taught(self, x: Tensor) -> Tensor | None:
        return self.teacher(x) if self.teacher else None

    def _look(self, rates: dict[str, tuple[float, float, float]], speed: float) -> None:
        """Stop if the loss is no number any more; else show how it goes."""
        failed = int(self.failed)
        if failed >= 0:
            epoch, batch = divmod(failed, self.plan.per_epoch)
            first = ", ".join(map(str, self.plan.indexes(failed)[:4].tolist()))
            raise ZooError(
                f"the loss is not finite at step {failed} (epoch {epoch}, batch {batch}, whose first images are {first}): "
                f"lower the rate with --set lr={self.recipe.lr / 2:g}, or clip the gradient with --set clip=1"
            )
        loss, right, images = self.seen.tolist()
        shown = {"loss": loss / images, "top1": right / images, "images/s": speed}
        if self.progress:
            self.progress(self.step, self.steps, shown)
        if self.watch and (rates or self.step % FIRING == 0):
            values = {"train/loss": shown["loss"], "train/top1": shown["top1"], "images_per_second": speed}
            self.watch.step(self.step, values | {"lr": self.optimizer.param_groups[0]["lr"]}, rates)

    def _end_epoch(self, started: float) -> dict[str, Any]:
        """The epoch's line of metrics; where it is time to, every process evaluates its part of the test images."""
        a, epoch = self.accelerator, self.step // self.plan.per_epoch
        right, seen = 0, 0
        if epoch % self.evaluate_every == 0 or self.step == self.steps:
            self._give()
            right, seen = correct(self.model, self.test, self.spec, rank=a.process_index, ranks=a.num_processes)
        counts = torch.tensor([right, seen], dtype=torch.float64, device=self.device)
        sums: Tensor = a.reduce(torch.cat([self.seen, counts]), "sum")
        loss, train_right, images, right, seen = sums.tolist()
        self.seen.zero_()
        line = {"epoch": epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
        line |= {"train_loss": loss / images, "train_top1": train_right / images}
        if seen:
            line |= {"test_top1": right / seen}
        line |= {"images": int(images), "seconds": round(time.monotonic() - started, 1)}
        if self.data.skipped:
            line |= {"skipped": self.data.skipped}
        if self.watch:
            self.watch.epoch(line)
        return line

    def _give(self) -> None:
        """The weights so far, or their average, to `model`, in eval mode."""
        values = self.average.values or self.net.state_dict()
        self.model.load_state_dict(parallel.whole(values))
        self.model.eval()

    def _save(self) -> None:
        saved = parallel.state(self.net, self.optimizer, self.average.values)
        seen: Tensor = self.accelerator.reduce(self.seen.clone(), "sum")
        if self.accelerator.is_main_process:
            checkpoint.save(self.run, self.step, {**saved, "step": self.step, "seen": seen.tolist()})


class PerStep(nn.Module):
    """The network as losses want it that look at each time step: `[B, C, H, W]` -> `[T, B, K]`."""

    def __init__(self, net: DANet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.per_step(x).clone()  # FSDP2 hooks the output, which therefore should not be a view


def _augmented(
    pixels: Tensor, labels: Tensor, data: DatasetSpec, classes: int, recipe: Recipe, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Bytes as the network takes them, changed as the recipe says, and the targets that belong to them."""
    if recipe.auto_augment:
        pixels = auto_augment(pixels, recipe.auto_augment, random)
    if recipe.rand_augment:
        operations, magnitude = recipe.rand_augment
        pixels = rand_augment(pixels, operations, magnitude, random)
    x, targets = normalise(pixels, data), labels
    if recipe.crop_padding:
        x = augment.crop(x, recipe.crop_padding, random)
    if recipe.flip:
        x = augment.flip(x, random)
    if recipe.erase:
        x = augment.erase(x, recipe.erase, random)
    if recipe.random_erase:
        x = augment.random_erase(x, recipe.random_erase, random)
    if recipe.mixup or recipe.cutmix:
        x, targets = augment.mix(x, F.one_hot(labels, classes).float(), recipe.mixup, recipe.cutmix, random)
    return (x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else arrange(x).contiguous()), targets


def _rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    """The learning rate of a global step."""
    warmup = recipe.warmup_epochs * per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _groups(model: nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    """Weights of two or more dimensions decay; normalisation, bias and neuron parameters do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    yield {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay}
    yield {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0}
