"""The augmentation of a batch by a recipe."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError
from zoo.images import normalise
from zoo.saccades import saccades
from zoo.training import augment
from zoo.training.config import Recipe
from zoo.training.data import SaccadeSplit, Split
from zoo.training.policies import auto_augment, rand_augment
from zoo.training.sampler import BatchSampler
from zoo.training.sharded import ShardedDataset

__all__ = ["Augmentation", "check_augmentation"]

MIN_SIZE = 8  # pixels of height and width
MAX_ENLARGEMENT = 4  # of the data set's size


def check_augmentation(recipe: Recipe, spec: DatasetSpec, data: Split) -> None:
    """Raise `ConfigError` for changes of the images that these data do not allow."""
    files = data.stills if isinstance(data, SaccadeSplit) else data
    if recipe.flip_alternating and isinstance(files, ShardedDataset):
        raise ConfigError(
            "recipe: flip_alternating needs images that have numbers, "
            "which those of shards have not: use flip"
        )
    if recipe.whiten and spec.events:
        raise ConfigError(f"recipe: whiten is for images; {spec.title} has events: set it to false")
    sizes = [size for _, size in recipe.sizes] or [spec.size]
    largest = MAX_ENLARGEMENT * spec.size
    if recipe.sizes and (spec.events or min(sizes) < MIN_SIZE or max(sizes) > largest):
        raise ConfigError(
            f"recipe: sizes are for images, of {MIN_SIZE} to {largest} pixels a side "
            f"for {spec.title}"
        )
    if recipe.crop_mode == "reflect" and recipe.crop_padding >= min(sizes):
        raise ConfigError(
            f"recipe: crop_padding = {recipe.crop_padding} must be below {min(sizes)} pixels "
            "to mirror the image"
        )


@dataclass(frozen=True)
class Augmentation:
    """The way from the bytes of a batch to what the network takes, and to its targets."""

    recipe: Recipe
    spec: DatasetSpec
    classes: int
    sampler: BatchSampler
    steps: int  # T, where the schedule says no other

    def __call__(
        self, pixels: Tensor, labels: Tensor, step: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the augmented batch of a step, and its targets.

        Bytes `[B, C, H, W]` become normalised images `[B, C, H, W]` or the events of simulated
        saccades `[T, B, 2, H, W]`, events `[B, T, C, H, W]` become `[T, B, C, H, W]`. The targets
        are the labels `[B]`, or shares `[B, K]` where images are mixed. All draws come from the CPU
        generator `random`.
        """
        recipe, epoch = self.recipe, step // self.sampler.per_epoch
        if recipe.auto_augment:
            pixels = auto_augment(pixels, recipe.auto_augment, random)
        if recipe.rand_augment:
            operations, magnitude = recipe.rand_augment
            pixels = rand_augment(pixels, operations, magnitude, random)
        # Of still images whose events are simulated, zero is black, as beyond their border.
        x = pixels.float() if self.spec.still else normalise(pixels, self.spec)
        targets = labels
        if (size := recipe.size_at(epoch, self.spec.size)) != self.spec.size:
            x = augment.resize(x, size)
        if recipe.crop_padding:
            x = augment.crop(x, recipe.crop_padding, random, reflect=recipe.crop_mode == "reflect")
        if recipe.flip:
            x = augment.flip(x, random)
        if recipe.flip_alternating:
            x = augment.flip_alternating(x, self.sampler.indices(step), epoch, recipe.seed)
        if recipe.erase:
            x = augment.erase(x, recipe.erase, random)
        if recipe.random_erase:
            x = augment.random_erase(x, recipe.random_erase, random)
        if recipe.mixup or recipe.cutmix:
            one_hot = F.one_hot(labels, self.classes).float()
            x, targets = augment.mix(x, one_hot, recipe.mixup, recipe.cutmix, random)
        if self.spec.still:
            x = saccades(x, self.spec.ratio, recipe.steps_at(epoch, self.steps)).float()
        if x.dim() == 5:
            return x.transpose(0, 1).contiguous(), targets
        return x.contiguous(memory_format=torch.channels_last), targets
