"""Training on simulated saccades: images are augmented first, evaluations see their events."""

import pytest
import torch

import zoo
from zoo.datasets import DATASETS
from zoo.errors import ConfigError
from zoo.saccades import saccades
from zoo.training.config import Recipe
from zoo.training.data import Images, SaccadeSplit
from zoo.training.evaluate import count_correct
from zoo.training.sampler import BatchSampler, generator
from zoo.training.transforms import Augmentation

DATA = DATASETS["i2e-cifar10"]


def split(images: int, steps: int) -> SaccadeSplit:
    random = torch.Generator().manual_seed(images)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=random)
    return SaccadeSplit(Images(pixels, torch.arange(images) % 10), DATA, steps)


def test_an_evaluation_sees_the_events_of_each_image() -> None:
    seen = split(5, 3)
    batches = list(seen.evaluation(2))
    expected = saccades(seen.stills.pixels, 0.07, 3)  # type: ignore[attr-defined]  # of images in memory
    assert torch.equal(torch.cat([events for events, _ in batches]), expected)
    model = zoo.create("danet20-t3.i2e-cifar10", widths=(4, 6, 8)).eval()
    assert model.origin is not None and model.origin.data == DATA
    assert count_correct(model, seen, DATA)[1] == 5


@pytest.mark.parametrize(("epoch", "steps"), [(0, 2), (1, 8)])
def test_a_batch_is_changed_and_then_converted(epoch: int, steps: int) -> None:
    """A mirrored image has the events of the mirrored image, in as many steps as are scheduled."""
    recipe = Recipe.load("i2e-cifar10", {"t_schedule": "[[0, 2], [1, 8]]", "crop_padding": "0"})
    images, sampler = split(6, 8), BatchSampler(6, 3, seed=0)
    augment = Augmentation(recipe, DATA, 10, sampler, 8)
    step = epoch * sampler.per_epoch
    pixels, labels = next(images.training(sampler, step))
    events, targets = augment(pixels, labels, step, generator(0, step))
    assert events.shape == (steps, 3, 2, 32, 32) and torch.equal(targets, labels)
    for i, image in enumerate(pixels):
        both = [saccades(one[None], 0.07, steps)[0].float() for one in (image, image.flip(-1))]
        assert any(torch.equal(events[:, i], one) for one in both)


def test_events_are_not_whitened() -> None:
    from zoo.training.transforms import check_augmentation

    recipe = Recipe.load("i2e-cifar10", {"whiten": "true"})
    with pytest.raises(ConfigError, match="whiten is for images; simulated micro-saccades of CIFA"):
        check_augmentation(recipe, DATA, split(2, 8))
