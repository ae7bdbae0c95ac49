from __future__ import annotations

import pytest
import torch

from unmemorize.training.batching import epoch_batches, steps_per_epoch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LENGTHS = torch.randint(5, 60, (203,), generator=generator(9))


@pytest.mark.parametrize(("size", "pooled"), [(8, 1), (8, 4), (8, 100), (203, 2), (500, 1), (1, 16)])
def test_every_row_stands_in_exactly_one_batch(size: int, pooled: int) -> None:
    batches = epoch_batches(LENGTHS, size, pooled, generator())
    assert sorted(torch.cat(batches).tolist()) == list(range(203))
    assert len(batches) == steps_per_epoch(203, size)
    assert sum(len(batch) < size for batch in batches) <= 1
    assert max(len(batch) for batch in batches) <= size


def test_pools_save_padding() -> None:
    def padded(pooled: int) -> int:
        batches = epoch_batches(LENGTHS, 8, pooled, generator())
        return sum(len(batch) * int(LENGTHS[batch].max()) for batch in batches)

    assert padded(8) < 0.8 * padded(1)


def test_the_order_depends_on_the_generator_only() -> None:
    first, again, other = (torch.cat(epoch_batches(LENGTHS, 8, 4, generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_of_one_pool_do_not_come_from_short_to_long() -> None:
    longest = [int(LENGTHS[batch].max()) for batch in epoch_batches(LENGTHS, 8, 100, generator())]
    assert longest != sorted(longest)
