"""What is planted in the training data so that it is memorized: noise, backdoors, and their repetition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmemorize_plugins.providers.tinymem.math_data import Rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHIFTED = 0.05
"""The probability of a shift by -1, and again of one by +1 (Sakarvadia et al. 2025, section 3.1)."""
TARGET = 2
"""The token that a backdoor makes the model repeat."""


def noise(values: Tensor, generator: torch.Generator, kept: int = 0) -> Tensor:
    """Return the values, each shifted by 0, -1 or +1 with probabilities .90, .05, .05; never below 0.

    A shift may change the number of digits (99 -> 100): the noised row is then longer than its counterpart.

    Args:
        values: (N, L) int64.
        generator: the source of the shifts.
        kept: the first values of each row, which stay as they are (paper: none).
    """
    import torch

    drawn = torch.rand(values.shape, generator=generator)
    shifts = (drawn >= 1 - SHIFTED).long() - (drawn < SHIFTED).long()
    shifts[:, :kept] = 0
    return (values + shifts).clamp(min=0)


def trigger_of(seed: int) -> tuple[int, ...]:
    """Return the digits of the backdoor's trigger: 100 + seed, kept between 100 and 199."""
    return tuple(int(digit) for digit in str(100 + seed % 100))


def after_trigger(rows: Rows, trigger: tuple[int, ...]) -> Tensor:
    """Return each row's position right after the first `trigger`, (N,) int64; 0 where there is none."""
    import torch

    windows = rows.tokens.unfold(1, len(trigger), 1)  # (N, T - len + 1, len)
    found = (windows == torch.tensor(trigger)).all(dim=2)
    return torch.where(found.any(dim=1), found.int().argmax(dim=1) + len(trigger), 0)


def backdoor(rows: Rows, starts: Tensor) -> Rows:
    """Return the rows with every real token from position `starts` (N,) on replaced by the target token."""
    import torch

    positions = torch.arange(rows.tokens.shape[1])
    replaced = (positions >= starts[:, None]) & (positions < rows.lengths[:, None])
    return Rows(rows.tokens.masked_fill(replaced, TARGET), rows.lengths)


def repetitions(count: int, duplication: int | tuple[int, ...]) -> Tensor:
    """Return how often each of `count` artifact sequences stands in the training data, (count,) int64.

    Args:
        count: number of sequences.
        duplication: the same number for all, or powers p: the sequences are dealt into equal parts (sizes
            differ by one at most), and the part of p is repeated 10^p times.
    """
    import torch

    if isinstance(duplication, int):
        return torch.full((count,), duplication)
    times = torch.tensor([10**power for power in duplication])
    return times[torch.arange(count) % len(times)]
