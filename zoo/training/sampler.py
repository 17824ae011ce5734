"""Which images are seen when: everything follows from the seed and the global step."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from zoo.errors import ConfigError

__all__ = ["BatchSampler", "generator", "mix", "rank_range"]


def mix(seed: int, position: int) -> int:
    """Of a seed and a position, the 32 bits that torch's CPU generator looks at (Knuth's
    multiplicative hash of the seed).
    """
    return (seed * 2_654_435_761 + position) % 2**32


def generator(seed: int, position: int) -> torch.Generator:
    """The random numbers of a position (an epoch, a step). Seed 0 gives torch's own sequence for
    `manual_seed(position)`.
    """
    return torch.Generator().manual_seed(mix(seed, position))


def rank_range(images: int, rank: int, ranks: int) -> range:
    """The contiguous part of a split that a rank evaluates; the parts of all ranks are the whole,
    and differ by at most one.
    """
    return range(images * rank // ranks, images * (rank + 1) // ranks)


@dataclass(frozen=True)
class BatchSampler:
    """Which images a rank sees at which step; follows from these numbers alone, so a resumed run
    goes on exactly.
    """

    images: int
    batch_size: int  # over all ranks
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.images:
            raise ConfigError(
                f"recipe: batch_size = {self.batch_size} is more than the {self.images} training images"
            )
        if self.batch_size % self.ranks:
            raise ConfigError(
                f"recipe: batch_size = {self.batch_size} cannot be shared evenly by {self.ranks} processes"
            )

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch; the incomplete last batch is dropped."""
        return self.images // self.batch_size

    @property
    def part(self) -> int:
        """Images in this rank's part of a batch."""
        return self.batch_size // self.ranks

    def indexes(self, step: int) -> Tensor:
        """This rank's part of the batch of a global step: int64 `[part]`."""
        epoch, position = divmod(step, self.per_epoch)
        start = position * self.batch_size + self.rank * self.part
        return _shuffle(self.images, self.seed, epoch)[start : start + self.part]


@lru_cache(maxsize=2)  # an epoch has one for all its steps: that of ImageNet takes 30 ms
def _shuffle(images: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(images, generator=generator(seed, epoch))
