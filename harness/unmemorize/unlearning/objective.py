"""What weight-level methods optimize: a weighted sum of mean losses over rows of several sets, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.edits import gradients_of, matrices_of
from unmemorize.errors import DivergedError
from unmemorize.training.losses import Tokens, sequence_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Term(NamedTuple):
    """One term of an objective: `weight` times the mean loss of `rows`."""

    weight: float
    rows: Sequences


def weighted_loss(model: PreTrainedModel, terms: Sequence[Term], tokens: Tokens = "all") -> Tensor:
    """Return the sum over `terms` of weight * mean of l(x) over its rows, a scalar, in one forward pass over all rows.

    l(x) = mean token cross-entropy of x over its real tokens (`all`) or those of its suffix.
    """
    rows = terms[0].rows if len(terms) == 1 else Sequences.concatenate([term.rows for term in terms])
    shares = torch.cat([torch.full((len(term.rows),), term.weight / len(term.rows)) for term in terms])
    losses = sequence_losses(model, rows, tokens=tokens)
    return (shares.to(losses.device) * losses).sum()


class Objective(NamedTuple):
    """An objective and what it says about every MLP matrix."""

    loss: Tensor
    """A scalar, detached."""
    gradients: dict[str, Tensor]
    """By parameter name, in the shape and dtype of the parameter."""


def objective_gradients(testbed: Testbed, terms: Sequence[Term], tokens: Tokens = "all") -> Objective:
    """Return `weighted_loss` and its gradient with respect to every MLP matrix.

    Cost: one forward + backward pass over the rows of all terms. Memory: their activations, and one copy of the MLP
    weights.
    """
    matrices = matrices_of(testbed.mlps)
    weights = [matrix.weight for matrix in matrices.values()]
    with gradients_of(testbed.model, weights), torch.enable_grad():
        loss = weighted_loss(testbed.model, terms, tokens)
        gradients = torch.autograd.grad(loss, weights)
    return Objective(loss.detach(), dict(zip(matrices, gradients, strict=True)))


def shuffled_rows(sequences: Sequences, size: int, steps: int, generator: torch.Generator) -> Iterator[Sequences]:
    """Yield `steps` batches of `size` rows: one random order after another, so that every row comes equally often."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(sequences), generator=generator)])
        rows, waiting = waiting[:size], waiting[size:]
        yield sequences.select(rows).cut()


class LossWatch:
    """Looks at the losses of many steps at a time: looking at each one would make the host wait for an accelerator."""

    def __init__(self, where: str, every: int = 50) -> None:
        """Watch the steps of `where`, which are numbered from 0."""
        self._where, self._every = where, every
        self._waiting: list[Tensor] = []
        self._seen = 0

    def add(self, loss: Tensor) -> None:
        """Take the loss of the next step."""
        self._waiting.append(loss.detach())
        if len(self._waiting) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at the losses taken since the last look.

        Raises:
            DivergedError: one is not finite; it names the first such step.
        """
        if not self._waiting:
            return
        bad = (~torch.isfinite(torch.stack(self._waiting))).nonzero().flatten().tolist()
        if bad:
            raise DivergedError(self._where, self._seen + bad[0])
        self._seen += len(self._waiting)
        self._waiting.clear()
