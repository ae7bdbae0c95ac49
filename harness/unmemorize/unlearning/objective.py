"""What weight-level methods optimize: a weighted sum of mean losses over rows of several sets, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.layout import Matrix
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.edits import matrices_of, visited_gradients
from unmemorize.errors import DivergedError
from unmemorize.training.losses import Tokens, sequence_losses

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


class Term(NamedTuple):
    """One term of an objective: `weight` times the mean loss of `rows`."""

    weight: float
    rows: Sequences


def weighted_loss(model: PreTrainedModel, terms: Sequence[Term], tokens: Tokens = "all") -> Tensor:
    """Return the sum over `terms` of weight * mean of l(x) over its rows, a scalar, in one forward pass over all rows.

    l(x) = mean token cross-entropy of x over its real tokens (`all`) or those of its suffix.
    """
    import torch

    rows = terms[0].rows if len(terms) == 1 else Sequences.concatenate([term.rows for term in terms])
    shares = torch.cat([torch.full((len(term.rows),), term.weight / len(term.rows)) for term in terms])
    losses = sequence_losses(model, rows, tokens=tokens)
    return (shares.to(losses.device) * losses).sum()


class Objective(NamedTuple):
    """An objective and its gradient for every MLP matrix."""

    loss: Tensor
    """A scalar, detached."""
    gradients: dict[str, Tensor]
    """By parameter name, in the shape and dtype of the parameter."""


def objective_gradients(testbed: Testbed, terms: Sequence[Term], tokens: Tokens = "all") -> Objective:
    """Return `weighted_loss` and its gradient with respect to every MLP matrix.

    Cost: one forward + backward pass over the rows of all terms. Memory: their activations, and one copy of the MLP
    weights.
    """
    import torch

    gradients = dict.fromkeys(matrices_of(testbed.mlps), torch.empty(0))

    def keep(matrix: Matrix, gradient: Tensor) -> None:
        gradients[matrix.name] = gradient

    return Objective(visit_objective_gradients(testbed, terms, keep, tokens), gradients)


def visit_objective_gradients(
    testbed: Testbed, terms: Sequence[Term], visit: Callable[[Matrix, Tensor], None], tokens: Tokens = "all"
) -> Tensor:
    """Show `visit` the gradient of `weighted_loss` for one MLP matrix after another, and return the loss, detached.

    Cost: as `objective_gradients`. Memory: the activations of all rows, and the gradient of one matrix at a time.

    Args:
        testbed: its model and MLPs.
        terms: the objective.
        visit: called with a matrix and its gradient, in the parameter's shape and dtype; it may use the tensor up.
        tokens: which real tokens of a row its loss is averaged over.
    """
    with visited_gradients(testbed.model, list(matrices_of(testbed.mlps).values()), visit):
        loss = weighted_loss(testbed.model, terms, tokens)
        loss.backward()
    return loss.detach()


def shuffled_rows(sequences: Sequences, size: int, steps: int, generator: torch.Generator) -> Iterator[Sequences]:
    """Yield `steps` batches of `size` rows: one random order after another, so that every row comes equally often."""
    import torch

    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(sequences), generator=generator)])
        rows, waiting = waiting[:size], waiting[size:]
        yield sequences.select(rows).cut()


def sampled_rows(sequences: Sequences, count: int, generator: torch.Generator) -> Sequences:
    """Return at most `count` rows, drawn without replacement, in their own order."""
    import torch

    order = torch.randperm(len(sequences), generator=generator)
    return sequences.select(order[:count].sort().values)


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
        import torch

        if not self._waiting:
            return
        bad = (~torch.isfinite(torch.stack(self._waiting))).nonzero().flatten().tolist()
        if bad:
            raise DivergedError(self._where, self._seen + bad[0])
        self._seen += len(self._waiting)
        self._waiting.clear()
