"""Learn which weights to remove: scores trained through a straight-through mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from unmemorize.contracts.context import Context
from unmemorize.contracts.layout import Matrix
from unmemorize.contracts.testbed import Testbed
from unmemorize.editing.edits import matrices_of
from unmemorize.editing.selection import count_for, kth_largest, select_top
from unmemorize.unlearning.neurons import note_ties
from unmemorize.unlearning.objective import LossWatch, Term, objective_gradients
from unmemorize.unlearning.weights import WeightConfig, put_back


class SubnetConfig(WeightConfig):
    """How the scores are trained. Defaults: Sakarvadia et al. 2025 (SGD, after Ramanujan et al. 2020)."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of each MLP matrix to remove. Grid of Sakarvadia et al. 2025: 1e-4, 0.001, 0.01, 0.05, 0.1, 0.25, 0.3."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the data."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of the scores."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the scores."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of the scores."""


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
    step replaces the sort; all terms of a step share one forward and backward pass.
    """
    matrices = matrices_of(testbed.mlps)
    generator = context.generator("mask scores")
    with context.timed("attribute"):
        scores = {name: _initial_scores(matrix, generator) for name, matrix in matrices.items()}
        optimizer = torch.optim.SGD(
            list(scores.values()), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
        plan = (terms for _ in range(config.epochs) for terms in epoch(generator))
        watch = LossWatch("learning the mask")
        with put_back(matrices) as originals:
            for terms in context.track(plan, "learning the mask", steps * config.epochs):
                _apply_mask(matrices, originals, scores, config.ratio)
                loss, gradients = objective_gradients(testbed, terms, config.tokens)
                watch.add(loss)
                _pass_through(gradients, originals, scores)
                optimizer.step()
                optimizer.zero_grad()
            watch.look()
    with context.timed("edit"):
        selection = select_top({name: -score.abs() for name, score in scores.items()}, config.ratio, "layer")
    note_ties(context, selection.ties)
    return selection.masks


def _initial_scores(matrix: Matrix, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = sqrt(5): uniform in +-1/sqrt(inputs). Drawn on the CPU, so that devices agree."""
    inputs = matrix.by_input().shape[0]
    uniform = torch.rand(matrix.by_input().T.shape, generator=generator)
    scores = (2 * uniform - 1) / math.sqrt(inputs)
    stored = scores.T.contiguous() if matrix.stores_input_first else scores
    return stored.to(matrix.weight.device)


@torch.no_grad()
def _apply_mask(
    matrices: Mapping[str, Matrix],
    originals: Mapping[str, Tensor],
    scores: Mapping[str, Tensor],
    ratio: float,
) -> None:
    for name, matrix in matrices.items():
        size = scores[name].abs()
        removed = count_for(ratio, size.numel(), name)
        threshold = kth_largest([size], size.numel() - removed + 1)
        torch.mul(originals[name], size > threshold, out=matrix.weight.data)


@torch.no_grad()
def _pass_through(gradients: dict[str, Tensor], originals: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
    """Turn the gradients of the weights into those of the scores, one matrix after another; `gradients` is used up."""
    for name, score in scores.items():
        score.grad = gradients.pop(name).float().mul_(originals[name]).mul_(score.sign())
