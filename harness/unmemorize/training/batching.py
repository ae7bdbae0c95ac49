"""The order in which a training epoch visits its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def epoch_batches(lengths: Tensor, size: int, pooled: int, generator: torch.Generator) -> list[Tensor]:
    """Return the row numbers of every batch of one epoch, shuffled; each row stands in exactly one batch.

    Rows are shuffled, then sorted by length inside pools of `pooled` batches, so that the rows of a batch need
    little padding, and the batches are shuffled again. At most one batch is smaller than the others.

    Args:
        lengths: (N,) number of real tokens of each row.
        size: rows per batch.
        pooled: batches per pool; 1 keeps the order purely random.
        generator: the epoch's own source of randomness.
    """
    import torch

    order = torch.randperm(len(lengths), generator=generator)
    pools = torch.split(order, size * pooled)
    batches = [batch for pool in pools for batch in torch.split(pool[lengths[pool].argsort(stable=True)], size)]
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


def steps_per_epoch(rows: int, size: int) -> int:
    """Return the number of batches that `epoch_batches` makes out of `rows`."""
    return -(-rows // size)
