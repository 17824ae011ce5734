"""The training loop. Everything random and every rate follows from the seed and the global step, so
a run that was killed and resumed is the run that was never killed.

A run's folder holds `recipe.json`, the last two checkpoints, `metrics.jsonl`, TensorBoard events,
and at the end the model folder.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.blocks import Block
from zoo.danet import DANet, set_steps
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, ZooError
from zoo.images import normalise
from zoo.processor import has_bfloat16
from zoo.training import augment, checkpoint, parallel
from zoo.training.config import Recipe
from zoo.training.data import BatchSampler, Split, generator
from zoo.training.ema import ModelEma
from zoo.training.evaluate import count_correct, time_first
from zoo.training.lineage import Init
from zoo.training.losses import compute_loss
from zoo.training.metrics import MetricsLogger, record_firing_rates
from zoo.training.policies import auto_augment, rand_augment
from zoo.training.streams import Shards
from zoo.training.whitening import images_needed, whiten

__all__ = ["DEFAULT", "Options", "Progress", "Teacher", "train"]

log = logging.getLogger(__name__)

# steps between two looks at the loss on a GPU, where each look waits for all that was sent there; 1
# on a CPU
LOOK = 20
FIRING = 200  # steps between two looks at the firing rates
SETTLED = 20  # steps after which the speed is worth an estimate of the end

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, what to show
# normalised images, as the network takes them -> logits [B, K]
Teacher = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is carried out, whatever is trained."""

    save_every: int = 500  # steps between two checkpoints
    evaluate_every: int = 1  # epochs between two evaluations; the last is always evaluated
    skip_bad: bool = False  # leave out images that cannot be read
    shard: bool = False  # divide the weights among the processes
    progress: Progress | None = None  # called after each step


DEFAULT = Options()


def train(
    model: DANet,
    recipe: Recipe,
    data: Split,
    test: Split,
    run: str | Path,
    *,
    spec: DatasetSpec | None = None,
    init: Init | None = None,
    teacher: Teacher | None = None,
    options: Options = DEFAULT,
) -> dict[str, Any]:
    """Train `model`, resuming from `run` if a checkpoint lies there; returns the last line of the
    metrics.

    `spec` describes the images, where they are a user's own; `init` is the record of the weights
    that `model` starts from (`zoo.training.lineage`), which the run keeps; `teacher` is distilled
    from. All processes that torchrun started call this together. Raises `ZooError` if the loss
    stops being finite or memory runs out, `ConfigError` if `run` belongs to another recipe or
    process.
    """
    run = Path(run)
    model.freeze(*recipe.freeze)
    first = parallel.accelerator(shard=options.shard).is_main_process
    try:
        with checkpoint.lock(run) if first else nullcontext():
            return _Training(model, recipe, data, test, run, spec, init, teacher, options).go()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(
            error
        ):
            raise
        ways = [] if recipe.checkpointing else ["checkpointing=true"]
        ways.append(f"batch_size={max(1, recipe.batch_size // 2)} lr={recipe.lr / 2:g}")
        raise ZooError(
            f"out of memory with batch_size = {recipe.batch_size}: try --set {', then '.join(ways)}"
        ) from None


class _Training:
    """A run: what it needs, and its loop."""

    def __init__(
        self,
        model: DANet,
        recipe: Recipe,
        data: Split,
        test: Split,
        run: Path,
        spec: DatasetSpec | None,
        init: Init | None,
        teacher: Teacher | None,
        options: Options,
    ) -> None:
        self.model, self.recipe, self.run, self.teacher, self.options = (
            model,
            recipe,
            run,
            teacher,
            options,
        )
        self.spec = spec or DATASETS[recipe.dataset]
        self.accelerator = a = parallel.accelerator(shard=options.shard)
        self.device = a.device
        self.plan = BatchSampler(
            data.images, recipe.batch_size, recipe.seed, a.process_index, a.num_processes
        )
        self.steps = self.plan.per_epoch * recipe.epochs
        self.bf16 = recipe.bf16 is True or (recipe.bf16 == "auto" and has_bfloat16(self.device))
        _check_images(recipe, self.spec, data)
        if a.is_main_process:
            run.mkdir(parents=True, exist_ok=True)
            resolved = {
                "model": model.config.to_dict(),
                "recipe": recipe.to_dict(),
                "torch": torch.__version__,
            }
            described = {"data": spec.to_dict(), "images": data.images} if spec else {}
            checkpoint.claim(
                run / "recipe.json",
                resolved | described | ({"init": init.to_dict()} if init else {}),
            )
        a.wait_for_everyone()
        self.data, self.test = data.to(self.device), test.to(self.device)

        # `net` is trained; `model` gets its weights, or their average, to be evaluated.
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stub
        saved = checkpoint.latest(run)
        # then the first convolution is trained already
        taken = init is not None and "stem" not in init.new
        if recipe.whiten and not saved and not taken:
            first = _first_convolution(model)
            needed = BatchSampler(
                data.images, min(images_needed(first, self.spec.size), data.images), recipe.seed
            )  # for every process
            whiten(first, normalise(next(self.data.training(needed, 0))[0], self.spec))
        self.net = copy.deepcopy(model).train()
        for module in self.net.modules():
            if isinstance(module, Block):
                module.checkpointing = recipe.checkpointing
        self.call = parallel.spread(
            PerStep(self.net) if recipe.loss == "tet" else self.net, a, shard=options.shard
        )
        groups = _groups(self.net, recipe)
        self.factors = [group.pop("factor") for group in groups]
        self.optimizer = torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True
        )
        self.average = ModelEma(self.net, recipe.ema)

        # Of the epoch so far: loss, correct answers, images, and seconds of processor time.
        self.step, self.seen = 0, torch.zeros(4, dtype=torch.float64, device=self.device)
        # the first step whose loss was not finite
        self.failed = torch.full((), -1, device=self.device)
        self.begun = time.monotonic()  # of the epoch, less what earlier processes took
        if saved:
            self.begun -= saved.get("seconds", 0.0)  # older checkpoints have none
            parallel.load_state(self.net, self.optimizer, self.average.values, saved)
            self.step = saved["step"]
            sums = [*saved["seen"], 0.0][:4]  # older checkpoints have no seconds
            # an equal share
            self.seen = (
                torch.tensor(sums, dtype=torch.float64, device=self.device) / a.num_processes
            )
        self.watch = MetricsLogger(run, self.step) if a.is_main_process else None
        log.info(
            "training on %s in %s: %d epochs of %d steps, %d images each",
            self.device, self.precision, recipe.epochs, self.plan.per_epoch, recipe.batch_size,
        )  # fmt: skip

    @property
    def precision(self) -> str:
        """What convolutions compute in; membranes are always float32."""
        return "bfloat16" if self.bf16 else "float32"

    def go(self) -> dict[str, Any]:
        recipe, per_epoch = self.recipe, self.plan.per_epoch
        look = 1 if self.device.type == "cpu" else LOOK
        batches = self.data.training(self.plan, self.step)
        start = looked = self.step, time.monotonic()
        last: dict[str, Any] = {}
        while self.step < self.steps:
            epoch_ends = (self.step + 1) % per_epoch == 0
            set_steps(self.net, recipe.steps_at(self.step // per_epoch, self.model.config.steps))
            begun = time.process_time()
            rates = self._update(*next(batches))
            self.seen[3] += time.process_time() - begun
            self.step += 1
            if self.step == start[0] + SETTLED:
                self._estimate(time.monotonic() - start[1], SETTLED)
            saves = epoch_ends or self.step % self.options.save_every == 0
            if saves or self.step % look == 0:
                now = time.monotonic()
                speed = (self.step - looked[0]) * recipe.batch_size / max(now - looked[1], 1e-9)
                self._look(rates, speed)
                # a mean: the step that looks at the firing rates is slower than others
                if rates or saves:
                    looked = self.step, now
            if epoch_ends:
                last = self._end_epoch()
                self._estimate(time.monotonic() - self.begun, per_epoch)
                self.begun = time.monotonic()
                looked = self.step, self.begun
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
        rate = _rate(recipe, self.step, per_epoch, self.steps)
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor
        a = self.accelerator
        random = generator(recipe.seed, self.step * a.num_processes + a.process_index)
        x, targets = self._augmented(pixels, labels, random)
        looks = (self.step + 1) % FIRING == 0 or (self.step + 1) % per_epoch == 0
        with record_firing_rates(
            self.net if looks and a.is_main_process else nn.Identity()
        ) as rates:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.call(x[: self.net.head.readout.steps] if x.dim() == 5 else x)
                wanted = self._taught(x)
        loss = compute_loss(recipe, logits, targets, wanted)
        self.optimizer.zero_grad(set_to_none=True)
        a.backward(loss)
        if recipe.clip:
            a.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.optimizer.step()
        self.average.update(self.net, self.step)

        loss = loss.detach()
        predicted = (logits.mean(0) if recipe.loss == "tet" else logits).argmax(1)
        right = (predicted == labels).sum()
        self.seen[:3] += torch.stack(
            [loss.double() * len(labels), right.double(), right.new_full((), len(labels)).double()]
        )
        self.failed = torch.where((self.failed < 0) & ~loss.isfinite(), self.step, self.failed)
        return rates

    def _augmented(
        self, pixels: Tensor, labels: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Bytes as the network takes them, changed as the recipe says, and the targets that belong
        to them.
        """
        recipe, spec, epoch = self.recipe, self.spec, self.step // self.plan.per_epoch
        if recipe.auto_augment:
            pixels = auto_augment(pixels, recipe.auto_augment, random)
        if recipe.rand_augment:
            operations, magnitude = recipe.rand_augment
            pixels = rand_augment(pixels, operations, magnitude, random)
        x, targets = normalise(pixels, spec), labels
        if (size := recipe.size_at(epoch, spec.size)) != spec.size:
            x = augment.resize(x, size)
        if recipe.crop_padding:
            x = augment.crop(x, recipe.crop_padding, random, reflect=recipe.crop_mode == "reflect")
        if recipe.flip:
            x = augment.flip(x, random)
        if recipe.flip_alternating:
            x = augment.flip_alternating(x, self.plan.indexes(self.step), epoch, recipe.seed)
        if recipe.erase:
            x = augment.erase(x, recipe.erase, random)
        if recipe.random_erase:
            x = augment.random_erase(x, recipe.random_erase, random)
        if recipe.mixup or recipe.cutmix:
            one_hot = F.one_hot(labels, self.model.config.num_classes).float()
            x, targets = augment.mix(x, one_hot, recipe.mixup, recipe.cutmix, random)
        return (
            x.contiguous(memory_format=torch.channels_last)
            if x.dim() == 4
            else time_first(x).contiguous()
        ), targets

    def _estimate(self, seconds: float, steps: int) -> None:
        """Say how fast the last steps were, and when the rest will be done at that speed, given
        each epoch's T and image size.
        """
        epoch = (self.step - 1) // self.plan.per_epoch
        rest = sum(map(self._work, range(epoch + 1, self.recipe.epochs))) * self.plan.per_epoch
        rest += self._work(epoch) * ((epoch + 1) * self.plan.per_epoch - self.step)
        end = datetime.now() + timedelta(seconds=seconds / steps * rest / self._work(epoch))
        if self.step < self.steps:
            speed = steps * self.recipe.batch_size / seconds
            log.info(
                "%.3g images/s at T = %d; done about %s",
                speed,
                self.net.head.readout.steps,
                f"{end:%Y-%m-%d %H:%M}",
            )

    def _work(self, epoch: int) -> int:
        """What a step of the epoch costs, in any unit: in proportion to time steps and pixels."""
        return (
            self.recipe.steps_at(epoch, self.model.config.steps)
            * self.recipe.size_at(epoch, self.spec.size) ** 2
        )

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
        loss, right, images, _ = self.seen.tolist()
        shown = {"loss": loss / images, "top1": right / images, "images/s": speed}
        if self.options.progress:
            self.options.progress(self.step, self.steps, shown)
        if self.watch and (rates or self.step % FIRING == 0):
            values = {
                "train/loss": shown["loss"],
                "train/top1": shown["top1"],
                "images_per_second": speed,
            }
            self.watch.step(self.step, values | {"lr": self.optimizer.param_groups[0]["lr"]}, rates)

    def _end_epoch(self) -> dict[str, Any]:
        """The epoch's line of metrics; where it is time to, every process evaluates its part of the
        test images.
        """
        a, epoch = self.accelerator, self.step // self.plan.per_epoch
        right, seen = 0, 0
        if epoch % self.options.evaluate_every == 0 or self.step == self.steps:
            self._give()
            right, seen = count_correct(
                self.model, self.test, self.spec, rank=a.process_index, ranks=a.num_processes
            )
        counts = torch.tensor([right, seen], dtype=torch.float64, device=self.device)
        sums: Tensor = a.reduce(torch.cat([self.seen, counts]), "sum")
        loss, train_right, images, core_seconds, right, seen = sums.tolist()
        self.seen.zero_()
        line = {"epoch": epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
        line |= {"train_loss": loss / images, "train_top1": train_right / images}
        if seen:
            line |= {f"{self.recipe.evaluated}_top1": right / seen}
        line |= {
            "images": int(images),
            "seconds": round(time.monotonic() - self.begun, 1),
            "core_seconds": round(core_seconds, 1),
        }
        line |= {"precision": self.precision}
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
            seconds = time.monotonic() - self.begun
            checkpoint.save(
                self.run,
                self.step,
                {**saved, "step": self.step, "seen": seen.tolist(), "seconds": seconds},
            )


class PerStep(nn.Module):
    """The network as losses want it that look at each time step: `[B, C, H, W]` -> `[T, B, K]`."""

    def __init__(self, net: DANet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        # FSDP2 hooks the output, which therefore should not be a view
        return self.net.per_step(x).clone()


def _check_images(recipe: Recipe, spec: DatasetSpec, data: Split) -> None:
    """Raise `ConfigError` for changes of the images that these data do not allow."""
    if recipe.flip_alternating and isinstance(data, Shards):
        raise ConfigError(
            "recipe: flip_alternating needs images that have numbers, which those of shards have not: use flip"
        )
    if recipe.whiten and spec.events:
        raise ConfigError(f"recipe: whiten is for images; {spec.title} has events: set it to false")
    sizes = [size for _, size in recipe.sizes] or [spec.size]
    if recipe.sizes and (spec.events or min(sizes) < 8 or max(sizes) > 4 * spec.size):
        raise ConfigError(
            f"recipe: sizes are for images, of 8 to {4 * spec.size} pixels a side for {spec.title}"
        )
    if recipe.crop_mode == "reflect" and recipe.crop_padding >= min(sizes):
        raise ConfigError(
            f"recipe: crop_padding = {recipe.crop_padding} must be below {min(sizes)} pixels to mirror the image"
        )


def _first_convolution(model: DANet) -> nn.Conv2d:
    return next(module for module in model.stem.modules() if isinstance(module, nn.Conv2d))


def _rate(recipe: Recipe, step: int, per_epoch: int, total: int) -> float:
    """The learning rate of a global step."""
    warmup = recipe.warmup_epochs * per_epoch
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    return recipe.lr * (
        1 - done if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    )


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters by weight decay, which only those of two or more dimensions have, and by the
    factor on their rate.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    biases = {
        id(m.bias)
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and recipe.norm_bias_rate != 1
    }
    groups = [
        {
            "params": [p for p in parameters if p.dim() > 1],
            "weight_decay": recipe.weight_decay,
            "factor": 1.0,
        },
        {
            "params": [p for p in parameters if p.dim() <= 1 and id(p) not in biases],
            "weight_decay": 0.0,
            "factor": 1.0,
        },
        {
            "params": [p for p in parameters if id(p) in biases],
            "weight_decay": 0.0,
            "factor": recipe.norm_bias_rate,
        },
    ]
    # an empty group would be one more than older checkpoints have
    return groups if biases else groups[:2]
