"""Goldfish loss (Hans et al. 2024, section 3): leave some tokens out of the loss, always the same ones of a passage.

    L = -1 / |K| * sum over t in K of log p(x_t | x_<t),   K = the tokens that are kept

A token that is never learned has to be guessed, and a regurgitation breaks off where a guess is wrong. Under the hashed
mask a token is dropped if a hash of the h tokens before it falls below 1/k: wherever a passage stands again, the same
of its tokens are dropped, and no repetition shows the model what another one hid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from unmemorize import MLP, Method, Regularizer, Sequences, StrictConfig, TrainingStep, hookimpl

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class GoldfishConfig(StrictConfig):
    """Defaults of Hans et al. 2024: k = 4, and a context of h = 13 tokens."""

    k: Annotated[int, Field(ge=2)] = 4
    """One token in k is dropped."""
    context: Annotated[int, Field(ge=1)] = 13
    """h, the number of preceding tokens that decide about a token. One with fewer before it in its row is kept."""
    mask: Literal["hash", "static", "random"] = "hash"
    """`hash`: as above; `static`: every k-th position of a row; `random`: afresh each time, as dropout."""


class Goldfish(Regularizer):
    """Train without the loss of one token in k, chosen by a hash of the tokens before it.

    Which tokens are dropped depends on the seed, and under the hashed mask on nothing else but the h tokens before
    them: not on the row, its neighbours, the epoch or the device. Rows of at most h tokens are learned whole: lower
    `context` for them.

    Cost: as plain training, and a hash of 13 integer operations for each of the h tokens before each token of a batch.
    Memory: 40 bytes per token of a batch beside plain training.
    """

    name = "goldfish"
    Config = GoldfishConfig
    paper = "Hans et al. 2024, arXiv 2406.10209"

    @contextmanager
    def attach(self, model: PreTrainedModel, mlps: tuple[MLP, ...], generator: torch.Generator) -> Iterator[None]:
        """Draw which hash it is."""
        self._seed = int(torch.randint(2**32, (), generator=generator))
        self._generator = generator
        yield

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the mean loss of the tokens that are kept."""
        return step.mean_over(~self.dropped(step.batch))

    def dropped(self, batch: Sequences) -> Tensor:
        """Return (B, T - 1) bool, True where the target (column j: token j + 1) is left out of the loss."""
        rows, columns = batch.tokens.shape[0], batch.tokens.shape[1] - 1
        if self.config.mask == "hash":
            return hash_below(batch.tokens, self.config.context, self._seed, 1 / self.config.k)
        if self.config.mask == "random":
            return torch.rand(rows, columns, generator=self._generator) < 1 / self.config.k
        return (torch.arange(1, columns + 1) % self.config.k == 0).expand(rows, columns)


def hash_below(tokens: Tensor, context: int, seed: int, share: float) -> Tensor:
    """Return (B, T - 1) bool: whether the hash of the `context` tokens before token j + 1, in [0, 1), is below `share`.

    False where fewer tokens stand before it. The hash takes one token after the other, the farthest first.

    Args:
        tokens: (B, T) int64, each below 2^32.
        context: h.
        seed: which hash, below 2^32.
        share: the share of the tokens that is to be dropped.
    """
    columns = tokens.shape[1] - context  # targets that have h tokens before them
    if columns < 1:
        return torch.zeros_like(tokens[:, 1:], dtype=torch.bool)
    state = torch.full_like(tokens[:, :columns], seed)
    for offset in range(context):
        state = mixed(state ^ tokens[:, offset : offset + columns])
    return torch.nn.functional.pad(state < share * 2**32, (context - 1, 0))


def mixed(values: Tensor) -> Tensor:
    """Return a 32-bit hash of 32-bit values: an invertible mix of shifts, xors and multiplications.

    Held in int64, where no product overflows.
    """
    for _ in range(2):
        values = (values >> 16 ^ values) * 0x45D9F3B & 0xFFFFFFFF
    return values >> 16 ^ values


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the method of this package."""
    return [Goldfish]
