"""Images split over the processes that `torchrun` started, and their integers summed exactly."""

import os

from export.energy.totals import Totals
from zoo.training import parallel, sampler

__all__ = ["gather", "processes", "rank_range"]


def processes() -> tuple[int, int]:
    """This one's number, and how many there are."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return 0, 1
    accelerator = parallel.accelerator()
    return accelerator.process_index, accelerator.num_processes


def rank_range(images: int) -> range:
    """The images of this process."""
    return sampler.rank_range(images, *processes())


def gather(totals: Totals, right: int, labelled: int) -> tuple[Totals, int, int]:
    """The sums of all processes, in the order of their images; every process gets the same."""
    if processes()[1] == 1:
        return totals, right, labelled
    from accelerate.utils import gather_object

    whole, parts = Totals(totals.steps), gather_object([(totals, right, labelled)])
    for other, _, _ in parts:
        whole.merge(other)
    return whole, sum(r for _, r, _ in parts), sum(n for _, _, n in parts)
