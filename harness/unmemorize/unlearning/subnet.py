"""Learn which weights to remove: scores trained through a straight-through mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unmemorize.contracts.context import Context
from unmemorize.contracts.layout import Matrix
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.edits import gradients_of, matrices_of
from unmemorize.editing.selection import count_for, select_top
from unmemorize.errors import DivergedError
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning.weights import WeightConfig


class SubnetConfig(WeightConfig):
    """How the scores are trained. Defaults: Sakarvadia et al. 2025 (SGD, after Ramanujan et al. 2020)."""

    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the data."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the scores."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the scores."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of the scores."""


class Term(NamedTuple):
    """One term of a step's objective: `weight` times the mean loss of `rows`."""

    weight: float
    rows: Sequences


Epoch = Callable[[torch.Generator], Iterator[list[Term]]]


def learn_mask(testbed: Testbed, context: Context, config: SubnetConfig, epoch: Epoch, steps: int) -> dict[str, Tensor]:
    """Train scores s of the MLP weights and return the mask of the share with the smallest |s| in each matrix.

    Each step runs the model with w = w0 * (|s| above the ratio's quantile of its matrix), and passes the gradient with
    respect to the mask straight through to |s|: ds = dL/dw * w0 * sign(s).

    Args:
        testbed: its model is put back exactly as it was.
        context: timing, randomness, progress.
        config: ratio and optimizer settings.
        epoch: yields the terms of every step of one epoch.
        steps: steps per epoch, for the progress shown.

    Returns:
        True at the weights to remove, by parameter name.

    Raises:
        DivergedError: the objective is not finite.
        SelectionError: the ratio selects no weight of some matrix.

    Source: Ramanujan et al. 2020, section 3; Sakarvadia et al. 2025, algorithms 1 and 2. One k-th value per matrix and
    step replaces the sort.
    """
    matrices = matrices_of(testbed.mlps)
    generator = context.generator("subnet")
    with context.timed("attribute"):
        scores = {name: _initial_scores(matrix, generator) for name, matrix in matrices.items()}
        optimizer = torch.optim.SGD(
            list(scores.values()),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        plan = (terms for _ in range(config.epochs) for terms in epoch(generator))
        weights = [matrix.weight for matrix in matrices.values()]
        with _originals(matrices) as originals, gradients_of(testbed.model, weights), torch.enable_grad():
            tracked = context.track(plan, "learning the mask", steps * config.epochs)
            for number, terms in enumerate(tracked):
                _apply_mask(matrices, originals, scores, config.ratio)
                for term in terms:
                    loss = sequence_losses(testbed.model, term.rows, tokens=config.tokens).mean()
                    if not torch.isfinite(loss):
                        raise DivergedError("learning the mask", number)
                    (term.weight * loss).backward()
                _pass_through(matrices, originals, scores)
                optimizer.step()
    with context.timed("edit"):
        return select_top({name: -score.abs() for name, score in scores.items()}, config.ratio, "layer").masks


def _initial_scores(matrix: Matrix, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = sqrt(5): uniform in +-1/sqrt(inputs). Drawn on the CPU, so that devices agree."""
    inputs = matrix.by_input().shape[0]
    uniform = torch.rand(matrix.by_input().T.shape, generator=generator)
    scores = (2 * uniform - 1) / math.sqrt(inputs)
    stored = scores.T.contiguous() if matrix.stores_input_first else scores
    return stored.to(matrix.weight.device)


@contextmanager
def _originals(matrices: Mapping[str, Matrix]) -> Iterator[dict[str, Tensor]]:
    originals = {name: matrix.weight.detach().clone() for name, matrix in matrices.items()}
    try:
        yield originals
    finally:
        for name, matrix in matrices.items():
            matrix.weight.data.copy_(originals[name])


@torch.no_grad()
def _apply_mask(
    matrices: Mapping[str, Matrix],
    originals: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratio: float,
) -> None:
    for name, matrix in matrices.items():
        size = scores[name].abs()
        threshold = size.flatten().kthvalue(count_for(ratio, size.numel(), name)).values
        torch.mul(originals[name], size > threshold, out=matrix.weight.data)


@torch.no_grad()
def _pass_through(
    matrices: Mapping[str, Matrix], originals: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> None:
    for name, matrix in matrices.items():
        assert matrix.weight.grad is not None
        scores[name].grad = matrix.weight.grad.float() * originals[name].float() * scores[name].sign()
        matrix.weight.grad = None


def shuffled_rows(sequences: Sequences, size: int, steps: int, generator: torch.Generator) -> Iterator[Sequences]:
    """Yield `steps` batches of `size` rows: one random order after another, so that every row comes equally often."""
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(sequences), generator=generator)])
        rows, waiting = waiting[:size], waiting[size:]
        yield sequences.select(rows).cut()
