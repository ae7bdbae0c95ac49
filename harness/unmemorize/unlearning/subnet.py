"""Learn which weights to remove: scores trained through a straight-through mask."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.context import Context
from unmemorize.contracts.cost import Cost, Sizes, count_shuffled_tokens
from unmemorize.contracts.layout import Matrix
from unmemorize.contracts.testbed import Testbed
from unmemorize.editing.edits import matrices_of
from unmemorize.editing.selection import count_for, kth_largest, select_top
from unmemorize.unlearning.neurons import note_ties
from unmemorize.unlearning.objective import LossWatch, Term, visit_objective_gradients
from unmemorize.unlearning.weights import SELECTION_SWEEPS, WeightConfig, WeightRemoval

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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


Epoch = Callable[["torch.Generator"], Iterator[list[Term]]]


class EpochSize(NamedTuple):
    """How the rows of an epoch are divided."""

    steps: int
    """Steps of an epoch."""
    rows: int
    """Rows of a step, of all sets together."""


class MaskLearning(WeightRemoval):
    """Implement `size` and `epoch`: what each step is about. The core learns which weights to remove."""

    Config: ClassVar[type[StrictConfig]] = SubnetConfig

    @abstractmethod
    def size(self, testbed: Testbed) -> EpochSize:
        """Return the steps of an epoch, and the rows of a step."""

    @abstractmethod
    def epoch(self, testbed: Testbed, generator: torch.Generator) -> Iterator[list[Term]]:
        """Yield the terms of each step of one epoch."""

    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return the learned mask: True at the weights to remove."""
        return learn_mask(testbed, context, self.config, partial(self.epoch, testbed), self.size(testbed).steps)

    def cost(self, testbed: Testbed) -> Cost:
        """Return the steps of all epochs, and the memory of scores, momentum and originals."""
        size, (epoch, rows) = Sizes.of(testbed), self.size(testbed)
        steps = epoch * self.config.epochs
        tokens = count_shuffled_tokens(
            rows, *(getattr(testbed, name) for name in ("forget", "retain") if name in self.needs)
        )
        return Cost(
            backward_tokens=steps * tokens,
            sweeps=(_STEP_SWEEPS * steps + SELECTION_SWEEPS) * size.weights,
            held_tokens=tokens,
            device_bytes=(size.weight_bytes + 12) * size.largest,
            offloadable_bytes=(size.weight_bytes + 8) * size.weights,
            advice="set fewer epochs",
        )


def learn_mask(testbed: Testbed, context: Context, config: SubnetConfig, epoch: Epoch, steps: int) -> dict[str, Tensor]:
    """Train scores s of the MLP weights and return the mask of the share with the smallest |s| in each matrix.

    Each step runs the model with w = w0 * (|s| above the ratio's quantile of its matrix), and passes the gradient with
    respect to the mask straight through to |s|: ds = dL/dw * w0 * sign(s).

    Args:
        testbed: its model is restored exactly.
        context: timing, randomness, progress.
        config: ratio and optimizer settings.
        epoch: yields the terms of every step of one epoch.
        steps: steps per epoch, for the progress shown.

    Returns:
        True at the weights to remove, by parameter name.

    Raises:
        DivergedError: the objective is not finite.
        SelectionError: the ratio selects no weight of some matrix.

    Memory: (b + 8) |P| bytes, b to a weight of the model (originals, scores, momentum), in main memory under
    `offload`; the gradient of one matrix at a time; the activations of one batch.

    Source: Ramanujan et al. 2020, section 3; Sakarvadia et al. 2025, algorithms 1 and 2. One k-th value per matrix and
    step replaces the sort; all terms of a step share one forward and backward pass.
    """
    generator = context.generator("mask scores")
    with context.timed("attribute"):
        scored = {
            name: _Scored(context, matrix, generator, config) for name, matrix in matrices_of(testbed.mlps).items()
        }
        plan = (terms for _ in range(config.epochs) for terms in epoch(generator))
        watch = LossWatch("learning the mask")
        try:
            for terms in context.track(plan, "learning the mask", steps * config.epochs):
                for one in scored.values():
                    one.mask_weights(config.ratio)
                loss = visit_objective_gradients(
                    testbed, terms, lambda matrix, gradient: scored[matrix.name].learn(gradient), config.tokens
                )
                watch.add(loss)
            watch.look()
        finally:
            for one in scored.values():
                one.restore()
    with context.timed("edit"):
        selection = select_top({name: one.given_up() for name, one in scored.items()}, config.ratio, "layer")
    note_ties(context, selection.ties)
    return selection.masks


_STEP_SWEEPS = 16
"""Operations on each score and weight in a step: the threshold, the mask, the gradient, momentum, decay."""


class _Scored:
    """The scores of one matrix, the optimizer that trains them, and the weights as they were.

    Memory: b + 8 bytes per weight (original, scores, momentum), b to a weight of the model.
    """

    def __init__(self, context: Context, matrix: Matrix, generator: torch.Generator, config: SubnetConfig) -> None:
        import torch

        self._matrix = matrix
        place = context.place_of(matrix.weight)
        self._original = matrix.weight.detach().to(place, copy=True)
        self._scores = _initial_scores(matrix, generator).to(place)
        self._optimizer = torch.optim.SGD(
            [self._scores], lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )

    def mask_weights(self, ratio: float) -> None:
        """Give the model its weights without the share whose scores are smallest."""
        import torch

        with torch.no_grad():
            weight = self._matrix.weight
            size = self._scores.to(weight.device).abs()
            removed = count_for(ratio, size.numel(), self._matrix.name)
            threshold = kth_largest([size], size.numel() - removed + 1)
            torch.mul(self._original.to(weight.device), size > threshold, out=weight.data)

    def learn(self, gradient: Tensor) -> None:
        """Make one step on the scores, from the gradient of the weights, which is used up."""
        original, sign = (part.to(gradient.device) for part in (self._original, self._scores.sign()))
        self._scores.grad = gradient.float().mul_(original).mul_(sign).to(self._scores.device)
        self._optimizer.step()
        self._scores.grad = None

    def restore(self) -> None:
        """Give the model its own weights again."""
        self._matrix.weight.data.copy_(self._original)

    def given_up(self) -> Tensor:
        """Return -|scores|, for the last time: scores, momentum and original weights are let go."""
        scores = self._scores.abs_().neg_()
        del self._scores, self._optimizer, self._original
        return scores


def _initial_scores(matrix: Matrix, generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = sqrt(5): uniform in +-1/sqrt(inputs). Drawn on the CPU, so that devices agree."""
    import torch

    inputs = matrix.by_input().shape[-2]
    uniform = torch.rand(matrix.by_input().mT.shape, generator=generator)
    scores = uniform.mul_(2).sub_(1).div_(math.sqrt(inputs))
    return scores.mT.contiguous() if matrix.stores_input_first else scores
