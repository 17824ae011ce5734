"""The training loop.

Everything random and every learning rate follows from the seed and the global step, so a run that
was killed and resumed is the run that was never killed.

A run's folder holds `recipe.json`, the last two checkpoints, `metrics.jsonl`, TensorBoard events,
and at the end the model folder.
"""

import copy
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.blocks import Block
from zoo.danet import DANet, set_steps
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, ZooError
from zoo.images import normalise
from zoo.processor import has_bfloat16
from zoo.training import checkpoint, parallel
from zoo.training.adversarial import worst_near
from zoo.training.config import Recipe
from zoo.training.data import Split
from zoo.training.ema import ModelEma
from zoo.training.evaluate import count_correct
from zoo.training.lineage import Init
from zoo.training.losses import compute_loss
from zoo.training.metrics import FiringRates, MetricsLogger, record_firing_rates
from zoo.training.optimizer import Optimizer, learning_rate
from zoo.training.pruning import Pruning
from zoo.training.sampler import BatchSampler, generator
from zoo.training.synops import Events, read_events, spikes_share, synops_share
from zoo.training.transforms import Augmentation, check_augmentation
from zoo.training.weight_forms import WeightForms
from zoo.training.whitening import images_needed, whiten

__all__ = ["DEFAULT", "Progress", "RunOptions", "Teacher", "Trainer", "TrainingRun", "train"]

log = logging.getLogger(__name__)

# Steps between two checks of the loss on a GPU, which waits for all work sent there before it tells
# one. On a CPU every step is checked.
STEPS_PER_CHECK = 20
STEPS_PER_FIRING = 200  # between two records of the firing rates
STEPS_OF_ESTIMATE = 20  # after which the speed is steady enough to estimate the end

Progress = Callable[[int, int, dict[str, float]], None]  # step, steps in all, values to show
# Takes normalised images as the network does, returns logits [B, K].
Teacher = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run that do not change what is learnt."""

    save_every: int = 500  # steps between two checkpoints
    evaluate_every: int = 1  # epochs between two evaluations; the last epoch is always evaluated
    skip_bad: bool = False  # leave out images that cannot be read
    shard: bool = False  # divide the weights among the processes
    progress: Progress | None = None  # called after each step


DEFAULT = RunOptions()


@dataclass(frozen=True)
class TrainingRun:
    """A run has images to train on, a recipe, and a folder where it keeps its files."""

    recipe: Recipe
    data: Split  # the training images
    test: Split  # the images to evaluate on
    folder: Path
    spec: DatasetSpec | None = None  # of a user's own images; None: of the recipe's data set
    init: Init | None = None  # the record of the weights that the model starts from
    teacher: Teacher | None = None  # another network to distil from
    options: RunOptions = DEFAULT


def train(model: DANet, run: TrainingRun) -> dict[str, Any]:
    """Train `model`, resuming if the run has a checkpoint; return the last line of the metrics.

    All processes that torchrun started call this together. Raises `ZooError` if the loss stops
    being finite or memory runs out, `ConfigError` if the folder belongs to another recipe or
    process.
    """
    model.freeze(*run.recipe.freeze)
    is_main = parallel.accelerator(shard=run.options.shard).is_main_process
    try:
        with checkpoint.lock(run.folder) if is_main else nullcontext():
            return Trainer(model, run).fit()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not on_gpu and "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(run.recipe) from None


def _out_of_memory(recipe: Recipe) -> ZooError:
    """Return the error that names the ways to need less memory."""
    ways = [] if recipe.checkpointing else ["checkpointing=true"]
    ways.append(f"batch_size={max(1, recipe.batch_size // 2)} lr={recipe.lr / 2:g}")
    return ZooError(
        f"out of memory with batch_size = {recipe.batch_size}: try --set {', then '.join(ways)}"
    )


class Trainer:
    """The state of a run, and its loop over all steps.

    `net` is trained; `model` receives its weights, or their average, to be evaluated.
    """

    def __init__(self, model: DANet, run: TrainingRun) -> None:
        self.model, self.run, self.recipe = model, run, run.recipe
        self.spec = run.spec or DATASETS[self.recipe.dataset]
        self.accelerator = parallel.accelerator(shard=run.options.shard)
        self.rank, self.ranks = self.accelerator.process_index, self.accelerator.num_processes
        self._check_processes()
        if self.recipe.adversarial_eps and self.spec.events:
            raise ConfigError("adversarial_eps is for still images, and these are events")
        self.device: torch.device = self.accelerator.device
        bf16 = self.recipe.bf16
        self.bf16 = bf16 is True or (bf16 == "auto" and has_bfloat16(self.device))
        self.sampler = BatchSampler(
            run.data.images, self.recipe.batch_size, self.recipe.seed, self.rank, self.ranks
        )
        self.total_steps = self.sampler.per_epoch * self.recipe.epochs
        check_augmentation(self.recipe, self.spec, run.data)
        classes = model.config.num_classes
        self.augment = Augmentation(
            self.recipe, self.spec, classes, self.sampler, self.model.config.steps
        )
        if self.accelerator.is_main_process:
            self._record_recipe()
        self.accelerator.wait_for_everyone()
        self.data, self.test = run.data.to(self.device), run.test.to(self.device)

        saved = checkpoint.latest(run.folder)
        self.net = self._trainable_copy(resumed=saved is not None)
        self.forward = parallel.wrap_for_distributed(
            PerStep(self.net) if self.recipe.loss == "tet" else self.net,
            self.accelerator,
            shard=run.options.shard,
        )
        self.optimizer = Optimizer(self.net, self.recipe)
        self.average = ModelEma(self.net, self.recipe.ema)
        grown = run.init.grown if run.init else ()
        self.pruning = Pruning(self.net, self.recipe, self.sampler.per_epoch, grown)
        self.forms = WeightForms(self.net, self.pruning, self.recipe)

        self.step = 0
        # The epoch's loss, correct answers, images, and seconds of processor time, so far.
        self.epoch_sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        self.epoch_began = time.monotonic()  # earlier, where other processes began the epoch
        self.failed_step = torch.full((), -1, device=self.device)  # the first without a finite loss
        self.paid_for: dict[str, Tensor] = {}  # shares of SynOps and spikes at the last step
        if saved:
            self._restore(saved)
        self.metrics = (
            MetricsLogger(run.folder, self.step) if self.accelerator.is_main_process else None
        )
        log.info(
            "training on %s in %s: %d epochs of %d steps, %d images each",
            self.device,
            self.precision,
            self.recipe.epochs,
            self.sampler.per_epoch,
            self.recipe.batch_size,
        )

    @property
    def precision(self) -> str:
        """Return the number format of convolutions; membranes are always float32."""
        return "bfloat16" if self.bf16 else "float32"

    def _record_recipe(self) -> None:
        """Write the resolved recipe, or check that the folder belongs to the same one."""
        run = self.run
        run.folder.mkdir(parents=True, exist_ok=True)
        resolved: dict[str, Any] = {
            "model": self.model.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "torch": torch.__version__,
        }
        if run.spec:
            resolved |= {"data": run.spec.to_dict(), "images": run.data.images}
        if run.init:
            resolved |= {"init": run.init.to_dict()}
        checkpoint.check_same_recipe(run.folder / "recipe.json", resolved)

    def _trainable_copy(self, *, resumed: bool) -> DANet:
        """Return a copy of the model in training mode, whitened if the recipe says so."""
        model, init = self.model, self.run.init
        # This form of `to` is missing in torch's stub.
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        stem_is_trained = init is not None and "stem" not in init.new
        if self.recipe.whiten and not resumed and not stem_is_trained:
            self._whiten()
        net = copy.deepcopy(model).train()
        for module in net.modules():
            if isinstance(module, Block):
                module.checkpointing = self.recipe.checkpointing
        return net

    def _whiten(self) -> None:
        """Whiten the model's first convolution, on the same images in every process."""
        convolutions = (m for m in self.model.stem.modules() if isinstance(m, nn.Conv2d))
        first = next(convolutions)
        images = self.run.data.images
        needed = min(images_needed(first, self.spec.size), images)
        batches = self.data.training(BatchSampler(images, needed, self.recipe.seed), 0)
        whiten(first, normalise(next(batches)[0], self.spec))

    def _check_processes(self) -> None:
        """Raise `ConfigError` for what needs whole weights, or all images, in each process."""
        recipe = self.recipe
        keys = ("prune", "weight_bits", "synops_weight", "adversarial_eps")
        if self.run.options.shard and any(getattr(recipe, key) for key in keys):
            raise ConfigError(f"{', '.join(keys)} need whole weights: leave out --shard")
        if self.ranks > 1 and recipe.prune and recipe.prune_scope == "synops":
            raise ConfigError(
                'prune_scope = "synops" counts the images of one process: start one, or set '
                "prune_scope=global"
            )

    def _restore(self, saved: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        parallel.load_full_state_dict(self.net, self.optimizer.sgd, self.average.values, saved)
        self.step = saved["step"]
        if self.recipe.prune:
            self.pruning.load(saved["pruning"])
        # Checkpoints of older versions have no seconds.
        self.epoch_began -= saved.get("seconds", 0.0)
        sums = torch.tensor([*saved["seen"], 0.0][:4], dtype=torch.float64, device=self.device)
        self.epoch_sums = sums / self.ranks  # an equal share

    def fit(self) -> dict[str, Any]:
        """Train to the end; return the last line of the metrics, which is empty but in one process.

        Raises `ZooError` if the loss stops being finite.
        """
        recipe, per_epoch = self.recipe, self.sampler.per_epoch
        check_every = 1 if self.device.type == "cpu" else STEPS_PER_CHECK
        batches = self.data.training(self.sampler, self.step)
        first_step, first_time = speed_step, speed_time = self.step, time.monotonic()
        line: dict[str, Any] = {}
        while self.step < self.total_steps:
            epoch_ends = (self.step + 1) % per_epoch == 0
            set_steps(self.net, recipe.steps_at(self.step // per_epoch, self.model.config.steps))
            processor_time = time.process_time()
            rates = self._update(*next(batches))
            self.epoch_sums[3] += time.process_time() - processor_time
            self.step += 1
            if self.step == first_step + STEPS_OF_ESTIMATE and not epoch_ends:
                seconds = time.monotonic() - first_time
                images = STEPS_OF_ESTIMATE * recipe.batch_size
                log.info("%s", self._speed_in_words(images, seconds, STEPS_OF_ESTIMATE))
            saves = epoch_ends or self.step % self.run.options.save_every == 0
            if saves or self.step % check_every == 0:
                self._check_loss()
                now = time.monotonic()
                images = (self.step - speed_step) * recipe.batch_size
                self._log_progress(rates, images / max(now - speed_time, 1e-9))
                # The speed is a mean: a step that records the firing rates is slower than others.
                if rates or saves:
                    speed_step, speed_time = self.step, now
            if epoch_ends:
                line = self._end_epoch()
                self.epoch_began = time.monotonic()
                speed_step, speed_time = self.step, self.epoch_began
            if saves:
                self._save()
        self._sync_eval_model()
        if self.metrics:
            line = line or self.metrics.last_epoch()
            self.metrics.close()
        return line

    def _update(self, pixels: Tensor, labels: Tensor) -> FiringRates:
        """Make one step of the optimiser; return how the layers fired, if they were recorded."""
        recipe, accelerator = self.recipe, self.accelerator
        self.optimizer.set_rate(
            learning_rate(recipe, self.step, self.sampler.per_epoch, self.total_steps)
        )
        random = generator(recipe.seed, self.step * self.ranks + self.rank)
        x, targets = self.augment(pixels, labels, self.step, random)
        recorded = self.net if self._records_firing() else nn.Identity()
        counts: AbstractContextManager[dict[str, Events]] = nullcontext({})
        if self._counts_synops():
            counts = read_events(self.net)
        self.optimizer.sgd.zero_grad(set_to_none=True)
        with self.forms.applied():
            if recipe.adversarial_eps:
                x = worst_near(self.net, x, targets, recipe, self.spec, random)
            with (
                record_firing_rates(recorded) as rates,
                counts as events,
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
            ):
                steps = self.net.head.readout.steps
                logits = self.forward(x[:steps] if x.dim() == 5 else x)
                teacher_logits = self._teacher_logits(x)
            loss = compute_loss(recipe, logits, targets, teacher_logits)
            paid = loss + self._price_of_spikes(events)
            accelerator.backward(paid)
        if recipe.clip:
            accelerator.clip_grad_norm_(self.net.parameters(), recipe.clip)
        self.optimizer.sgd.step()
        self.pruning.update(self.optimizer.sgd, self.step + 1, events)
        self.average.update(self.net, self.step)
        self._add_to_epoch(loss.detach(), logits, labels)
        self.failed_step = torch.where(
            (self.failed_step < 0) & ~paid.detach().isfinite(), self.step, self.failed_step
        )
        return rates

    def _counts_synops(self) -> bool:
        """Return whether what the convolutions read is needed at this step."""
        recipe = self.recipe
        chooses = recipe.prune_scope == "synops" and self.pruning.chooses(self.step + 1)
        return chooses or bool(recipe.synops_weight or recipe.spikes_weight)

    def _price_of_spikes(self, events: dict[str, Events]) -> Tensor:
        """Return what the loss pays for SynOps and spikes."""
        price = torch.zeros((), device=self.device)
        if self.recipe.synops_weight:
            share = synops_share(self.net, events)
            self.paid_for["synops_share"] = share.detach()
            price = price + self.recipe.synops_weight * share
        if self.recipe.spikes_weight:
            share = spikes_share(events)
            self.paid_for["spikes_share"] = share.detach()
            price = price + self.recipe.spikes_weight * share
        return price

    def _smaller(self) -> dict[str, float]:
        """Return how small the network is so far: zeros, and what the last step paid for."""
        values = {key: round(float(value), 5) for key, value in self.paid_for.items()}
        if self.recipe.prune:
            values["zeros"] = round(self.pruning.share(), 5)
        return values

    def _records_firing(self) -> bool:
        """Return whether this process records the firing rates of this step."""
        number = self.step + 1
        is_time = number % STEPS_PER_FIRING == 0 or number % self.sampler.per_epoch == 0
        return is_time and bool(self.accelerator.is_main_process)

    @torch.no_grad()
    def _teacher_logits(self, x: Tensor) -> Tensor | None:
        return self.run.teacher(x) if self.run.teacher else None

    def _add_to_epoch(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a step to the sums of the epoch, without waiting for the device."""
        predictions = (logits.mean(0) if self.recipe.loss == "tet" else logits).argmax(1)
        correct = (predictions == labels).sum()
        images = correct.new_full((), len(labels))
        sums = [loss.double() * len(labels), correct.double(), images.double()]
        self.epoch_sums[:3] += torch.stack(sums)

    def _check_loss(self) -> None:
        """Raise `ZooError` if the loss of a step was not finite."""
        step = int(self.failed_step)
        if step < 0:
            return
        epoch, batch = divmod(step, self.sampler.per_epoch)
        images = ", ".join(map(str, self.sampler.indices(step)[:4].tolist()))
        raise ZooError(
            f"the loss is not finite at step {step} "
            f"(epoch {epoch}, batch {batch}, whose first images are {images}): "
            f"lower the rate with --set lr={self.recipe.lr / 2:g}, "
            "or clip the gradient with --set clip=1"
        )

    def _log_progress(self, rates: FiringRates, speed: float) -> None:
        """Show loss and accuracy of the epoch so far, and the speed in images per second."""
        loss, correct, images, _ = self.epoch_sums.tolist()
        loss, top1 = loss / images, correct / images
        if self.run.options.progress:
            shown = {"loss": loss, "top1": top1, "images/s": speed}
            self.run.options.progress(self.step, self.total_steps, shown)
        if self.metrics and (rates or self.step % STEPS_PER_FIRING == 0):
            values = {"train/loss": loss, "train/top1": top1, "images_per_second": speed}
            values |= {f"train/{key}": value for key, value in self._smaller().items()}
            self.metrics.log_step(self.step, values | {"lr": self.optimizer.lr}, rates)

    def _speed_in_words(self, images: int, seconds: float, steps: int) -> str:
        """Return the speed of the last steps, and how long the others will take at that speed."""
        per_epoch, epoch = self.sampler.per_epoch, (self.step - 1) // self.sampler.per_epoch
        left = sum(map(self._step_cost, range(epoch + 1, self.recipe.epochs))) * per_epoch
        left += self._step_cost(epoch) * ((epoch + 1) * per_epoch - self.step)
        rest = timedelta(seconds=round(seconds / steps * left / self._step_cost(epoch)))
        t = self.net.head.readout.steps
        return f"{images / max(seconds, 1e-9):.3g} images/s at T = {t}, {rest} left"

    def _step_cost(self, epoch: int) -> int:
        """Return the cost of a step in an epoch, which grows with time steps and pixels."""
        steps = self.recipe.steps_at(epoch, self.model.config.steps)
        return steps * self.recipe.size_at(epoch, self.spec.size) ** 2

    def _end_epoch(self) -> dict[str, Any]:
        """Write the epoch's line of metrics and return it.

        If the epoch is one to evaluate, every process evaluates its part of the test images.
        """
        epoch = self.step // self.sampler.per_epoch
        correct, tested = 0, 0
        if epoch % self.run.options.evaluate_every == 0 or self.step == self.total_steps:
            self._sync_eval_model()
            correct, tested = count_correct(
                self.model, self.test, self.spec, rank=self.rank, ranks=self.ranks
            )
        counts = torch.tensor([correct, tested], dtype=torch.float64, device=self.device)
        sums: Tensor = self.accelerator.reduce(torch.cat([self.epoch_sums, counts]), "sum")
        loss, train_correct, images, core_seconds, correct, tested = sums.tolist()
        self.epoch_sums.zero_()
        line: dict[str, Any] = {"epoch": epoch, "step": self.step, "lr": self.optimizer.lr}
        line |= {"train_loss": loss / images, "train_top1": train_correct / images}
        if tested:
            line |= {f"{self.recipe.evaluated}_top1": correct / tested}
        seconds = time.monotonic() - self.epoch_began
        line |= {"images": int(images), "seconds": round(seconds, 1)}
        line |= {"core_seconds": round(core_seconds, 1), "precision": self.precision}
        line |= self._smaller()
        if self.data.skipped:
            line |= {"skipped": self.data.skipped}
        if self.metrics:
            self.metrics.log_epoch(line)
            log.info("%s", self._epoch_in_words(line, seconds))
        return line

    def _epoch_in_words(self, line: dict[str, Any], seconds: float) -> str:
        """Return what a person reads of an epoch; `metrics.jsonl` has the rest."""
        top1 = [
            f"{split} top-1 {line[f'{split}_top1']:.2%}"
            for split in ("train", self.recipe.evaluated)
            if f"{split}_top1" in line
        ]
        loss = f"epoch {line['epoch']} of {self.recipe.epochs}: loss {line['train_loss']:.4g}"
        speed = self._speed_in_words(line["images"], seconds, self.sampler.per_epoch)
        return ", ".join([loss, *top1, speed])

    def _sync_eval_model(self) -> None:
        """Give the weights so far, or their average, to `model`, in eval mode."""
        values = self.average.values or self.net.state_dict()
        self.model.load_state_dict(parallel.full_tensors(values))
        self.forms.settle(self.model)
        self.model.eval()

    def _save(self) -> None:
        """Write a checkpoint; all processes have to call this together."""
        state = parallel.full_state_dict(self.net, self.optimizer.sgd, self.average.values)
        sums: Tensor = self.accelerator.reduce(self.epoch_sums.clone(), "sum")
        if self.accelerator.is_main_process:
            seconds = time.monotonic() - self.epoch_began
            state |= {"step": self.step, "seen": sums.tolist(), "seconds": seconds}
            if self.recipe.prune:
                state |= {"pruning": self.pruning.state()}
            checkpoint.save(self.run.folder, self.step, state)


class PerStep(nn.Module):
    """A network that returns the logits of every time step: `[B, C, H, W]` -> `[T, B, K]`."""

    def __init__(self, net: DANet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[T, B, K]`."""
        # FSDP2 hooks the output, which therefore should not be a view.
        return self.net.per_step(x).clone()
