"""The order of the images follows from the seed and the step."""

import pytest
import torch

from zoo.errors import ConfigError
from zoo.training.sampler import BatchSampler, generator, rank_range


def test_an_epoch_is_a_permutation_without_its_incomplete_batch() -> None:
    sampler = BatchSampler(26, 4, seed=3)
    assert sampler.per_epoch == 6
    for epoch in range(3):
        seen = torch.cat([sampler.indices(step) for step in range(6 * epoch, 6 * epoch + 6)])
        assert torch.equal(seen, torch.randperm(26, generator=generator(3, epoch))[:24])


def test_seed_zero_is_the_sequence_of_torch() -> None:
    """With which weights were trained: the batches of a published run stay what they were."""
    assert torch.equal(generator(0, 5).get_state(), torch.Generator().manual_seed(5).get_state())
    assert generator(1, 5).initial_seed() == (2_654_435_761 + 5) % 2**32
    assert generator(2**40, 2**40).initial_seed() < 2**32
    assert (
        BatchSampler(10, 5).indices(1).tolist()
        == torch.randperm(10, generator=torch.Generator().manual_seed(0))[5:].tolist()
    )


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_ranks_share_the_batch_of_a_single_process(ranks: int) -> None:
    for step in (0, 3, 4, 11):
        parts = [BatchSampler(26, 6, 1, rank, ranks).indices(step) for rank in range(ranks)]
        assert {len(part) for part in parts} == {6 // ranks}
        assert torch.equal(torch.cat(parts), BatchSampler(26, 6, 1).indices(step))


def test_a_shuffle_is_computed_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(
        torch, "randperm", lambda *args, **kwargs: drawn.append(args) or randperm(*args, **kwargs)
    )
    sampler = BatchSampler(1234, 100, seed=99)
    for step in range(3 * sampler.per_epoch):
        sampler.indices(step)
    assert len(drawn) == 3


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^recipe: batch_size = 27 is more than the 26 training images$"
    ):
        BatchSampler(26, 27)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^recipe: batch_size = 10 cannot be shared evenly by 4 processes$"
    ):
        BatchSampler(26, 10, ranks=4)


@pytest.mark.parametrize("images", [0, 1, 2, 10, 11])
@pytest.mark.parametrize("ranks", [1, 3, 4])
def test_shares_are_the_whole(images: int, ranks: int) -> None:
    parts = [rank_range(images, rank, ranks) for rank in range(ranks)]
    assert [i for part in parts for i in part] == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
