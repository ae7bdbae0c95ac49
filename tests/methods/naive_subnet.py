"""Learning a mask as its algorithm says: autograd through an explicit mask, full sorts, SGD by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from naive import matrix_weights, row_loss, rows_of, top_by_sort
from torch.func import functional_call

from unmemorize import Sequences, Testbed


class StraightThrough(torch.autograd.Function):
    """The mask of all but the `count` smallest, by a full sort; its gradient is passed on as it is."""

    @staticmethod
    def forward(ctx: object, sizes: torch.Tensor, count: int) -> torch.Tensor:
        return (~top_by_sort(-sizes, count)).to(sizes)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class Called(torch.nn.Module):
    """A model seen through replaced weights."""

    def __init__(self, model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.weights = (model,), weights

    def forward(self, input_ids: torch.Tensor) -> object:
        return functional_call(self.inner[0], self.weights, (), {"input_ids": input_ids})


def first_scores(testbed: Testbed, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Kaiming-uniform with a = sqrt(5), drawn as (outputs, inputs)."""
    conv = testbed.model.config.model_type == "gpt2"
    scores = {}
    for name in [matrix.name for mlp in testbed.mlps for matrix in mlp.matrices]:
        shape = matrix_weights(testbed)[name].shape
        outputs, inputs = reversed(shape) if conv else shape
        bound = math.sqrt(6 / ((1 + 5) * inputs))
        drawn = (torch.rand((outputs, inputs), generator=generator) * 2 - 1) * bound
        scores[name] = (drawn.T.clone() if conv else drawn).requires_grad_()
    return scores


def learned(
    testbed: Testbed,
    scores: dict[str, torch.Tensor],
    ratio: float,
    steps: Iterable[list[tuple[float, Sequences]]],
) -> dict[str, torch.Tensor]:
    """Which weights are removed after `steps`, each a list of terms: a weight, and the rows of a mean loss.

    SGD with learning rate 0.1, momentum 0.9, weight decay 5e-4.
    """
    weights = {name: weight.detach() for name, weight in matrix_weights(testbed).items()}
    velocity = {name: torch.zeros_like(score) for name, score in scores.items()}
    for terms in steps:
        masks = {name: StraightThrough.apply(s.abs(), int(ratio * s.numel())) for name, s in scores.items()}
        model = Called(testbed.model, {name: weights[name] * mask for name, mask in masks.items()})
        means = [torch.stack([row_loss(model, row) for row, _ in rows_of(rows)]).mean() for _, rows in terms]
        loss = sum(share * mean for (share, _), mean in zip(terms, means, strict=True))
        gradients = torch.autograd.grad(loss, list(scores.values()))
        for (name, score), gradient in zip(scores.items(), gradients, strict=True):
            velocity[name] = 0.9 * velocity[name] + gradient + 5e-4 * score.detach()
            score.data -= 0.1 * velocity[name]
    return {name: top_by_sort(-score.detach().abs(), int(ratio * score.numel())) for name, score in scores.items()}
