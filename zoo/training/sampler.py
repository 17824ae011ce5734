"""The order in which images are trained on: it follows from the seed and the global step alone."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from zoo.errors import ConfigError

__all__ = ["BatchSampler", "generator", "mix_seed", "rank_range"]


def mix_seed(seed: int, position: int) -> int:
    """Return 32 bits that depend on a seed and a position.

    More bits would be lost: torch's CPU generator looks at 32. The seed is spread over them by
    Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4).
    """
    return (seed * 2_654_435_761 + position) % 2**32


def generator(seed: int, position: int) -> torch.Generator:
    """Return the generator of the random numbers of a position: an epoch, or a step.

    Seed 0 gives torch's own sequence for `manual_seed(position)`.
    """
    return torch.Generator().manual_seed(mix_seed(seed, position))


def rank_range(images: int, rank: int, ranks: int) -> range:
    """Return the contiguous part of a split that a rank evaluates.

    The parts of all ranks together are the split, and their lengths differ by at most one.
    """
    return range(images * rank // ranks, images * (rank + 1) // ranks)


@dataclass(frozen=True)
class BatchSampler:
    """Tells which images a rank sees at which step.

    Nothing but these numbers decides it, so a resumed run goes on exactly. Raises `ConfigError` for
    a batch that is larger than the data, or that the ranks cannot share evenly.
    """

    images: int
    batch_size: int  # over all ranks
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        batch = f"recipe: batch_size = {self.batch_size}"
        if not 1 <= self.batch_size <= self.images:
            raise ConfigError(f"{batch} is more than the {self.images} training images")
        if self.batch_size % self.ranks:
            raise ConfigError(f"{batch} cannot be shared evenly by {self.ranks} processes")

    @property
    def per_epoch(self) -> int:
        """Return the number of steps in an epoch; the incomplete last batch is dropped."""
        return self.images // self.batch_size

    @property
    def per_rank(self) -> int:
        """Return the number of images of a batch that one rank sees."""
        return self.batch_size // self.ranks

    def indices(self, step: int) -> Tensor:
        """Return this rank's images of the batch of a global step, int64 `[per_rank]`."""
        epoch, position = divmod(step, self.per_epoch)
        start = position * self.batch_size + self.rank * self.per_rank
        return _shuffled(self.images, self.seed, epoch)[start : start + self.per_rank]


@lru_cache(maxsize=2)  # one order serves all steps of an epoch; to draw ImageNet's takes 30 ms
def _shuffled(images: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(images, generator=generator(seed, epoch))
