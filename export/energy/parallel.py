"""Images split over the processes that `torchrun` started, and their integers summed exactly."""

import os

from export.energy.totals import Totals
from zoo.training import parallel, sampler

__all__ = ["gather", "processes", "rank_range"]


def processes() -> tuple[int, int]:
    """Return the rank of this process, and how many processes there are."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return 0, 1
    accelerator = parallel.accelerator()
    return accelerator.process_index, accelerator.num_processes


def rank_range(images: int) -> range:
    """Return the images of this process."""
    return sampler.rank_range(images, *processes())


def gather(totals: Totals, correct: int, labelled: int) -> tuple[Totals, int, int]:
    """Return the sums of all processes, in the order of their images, to every process.

    `correct` of the `labelled` images were classified correctly.
    """
    if processes()[1] == 1:
        return totals, correct, labelled
    from accelerate.utils import gather_object

    merged, parts = Totals(totals.steps), gather_object([(totals, correct, labelled)])
    for other, _, _ in parts:
        merged.merge(other)
    return merged, sum(right for _, right, _ in parts), sum(n for _, _, n in parts)
