"""Arithmetic sequences as tokens: a task applied again and again, written one character per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

BEGIN, END, SPACE, PAD = 10, 11, 12, 13
"""Token ids beside the digits 0-9: `^`, `$`, the space between values, and what fills a row on the right."""
VOCABULARY = 14


class Rows(NamedTuple):
    """N sequences, right-padded to T tokens."""

    tokens: Tensor
    """(N, T) int64."""
    lengths: Tensor
    """(N,) int64, number of real tokens."""

    def pick(self, index: Tensor) -> Rows:
        """Return the given rows, in the given order."""
        return Rows(self.tokens[index], self.lengths[index])


def additive(starts: Tensor, constant: int, length: int) -> Tensor:
    """Return the (N, length) values of x -> x + constant from each of the N `starts`."""
    import torch

    return starts[:, None] + constant * torch.arange(length)


def multiplicative(starts: Tensor, constant: int, length: int, modulus: int) -> Tensor:
    """Return the (N, length) values of x -> constant * x mod modulus from each of the N `starts`."""
    import torch

    values = [starts]
    for _ in range(length - 1):
        values.append(values[-1] * constant % modulus)
    return torch.stack(values, dim=1)


def tokenize(values: Tensor, width: int) -> Rows:
    """Write each row of values as `^v1 v2 ... $`, one token per character, padded to `width` tokens.

    Args:
        values: (N, L) int64, none negative.
        width: T; every row must fit.
    """
    import torch

    digits = len(str(int(values.max())))
    powers = 10 ** torch.arange(digits - 1, -1, -1)
    characters = values[:, :, None] // powers % 10
    written = (values[:, :, None] >= powers) | (powers == 1)  # no leading zeros, but zero itself is written
    separators = torch.full_like(values, SPACE)
    separators[:, -1] = END
    characters = torch.cat([characters, separators[:, :, None]], dim=2).flatten(1)
    written = torch.cat([written, written.new_ones((*values.shape, 1))], dim=2).flatten(1)
    lengths = 1 + written.sum(dim=1)
    tokens = torch.full((len(values), width), PAD)
    tokens[:, 0] = BEGIN
    row, column = written.nonzero(as_tuple=True)
    tokens[row, written.cumsum(dim=1)[row, column]] = characters[row, column]
    return Rows(tokens, lengths)


def longest(largest_value: int, length: int) -> int:
    """Return how many tokens `length` values can take if none is above `largest_value`."""
    return 1 + length * (len(str(largest_value)) + 1)
