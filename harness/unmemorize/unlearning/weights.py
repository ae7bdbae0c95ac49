"""Weight-level unlearning: score, select the top share, set to zero."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.context import Context
from unmemorize.contracts.cost import Cost, Sizes, count_tokens
from unmemorize.contracts.layout import MLP, Matrix
from unmemorize.contracts.method import Method, Stage
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.edits import matrices_of, visited_gradients, zero_weights
from unmemorize.editing.selection import COUNTED_FROM, Scope, select_top
from unmemorize.models.versions import evaluation_mode
from unmemorize.training.losses import Tokens, sequence_losses
from unmemorize.unlearning.neurons import attribution_key, missing_layout, note_ties

if TYPE_CHECKING:
    from torch import Tensor


class WeightConfig(StrictConfig):
    """What every weight-level method can be told."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the MLP matrix weights to set to zero. Grid of Sakarvadia et al. 2025: 1e-5 to 0.05."""
    tokens: Tokens = "all"
    """Which real tokens of a sequence its loss is averaged over."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sequences per pass."""


class WeightRemoval(Method):
    """Implement `masks`: which MLP weights to set to zero. The core sets them.

    For methods that score every weight and remove the top share, `WeightUnlearning` is the shorter way.
    """

    stage: ClassVar[Stage] = "unlearn"
    Config: ClassVar[type[StrictConfig]] = WeightConfig

    @abstractmethod
    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return True at the weights to remove: one bool tensor per MLP matrix, by parameter name, in its shape."""

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for models without a layout."""
        return super().supports(testbed) or missing_layout(testbed)

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Find the weights, and set them to zero."""
        with evaluation_mode(testbed.model):
            masks = self.masks(testbed, context)
        with context.timed("edit"):
            zero_weights(testbed.mlps, masks)
        context.report.notes["selected_weights"] = sum(int(mask.sum()) for mask in masks.values())


class WeightUnlearning(WeightRemoval):
    """Implement `score`; the core selects the top share of MLP weights and sets them to zero.

    Scores are computed once per testbed and shared over ratios; every cell is charged their full seconds.
    """

    scope: ClassVar[Scope] = "layer"
    """`layer`: the share is taken of every matrix. `global`: of all MLP matrices together."""
    gradient_passes: ClassVar[int | None] = None
    """How often `score` calls `mlp_gradients` on the forget set, where that is all: the cost follows from it."""

    @abstractmethod
    def score(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return how responsible each weight is: one float32 tensor per MLP matrix, by parameter name, in its shape."""

    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return True at the weights with the highest scores."""
        scores = context.shared(attribution_key(self), lambda: self.score(testbed, context))
        with context.timed("edit"):
            selection = select_top(scores, self.config.ratio, self.scope)
        note_ties(context, selection.ties)
        return selection.masks

    def cost(self, testbed: Testbed) -> Cost | None:
        """Return the passes, and the memory of gradients, ranking and masks; None without `gradient_passes`."""
        if self.gradient_passes is None:
            return None
        size, given = Sizes.of(testbed), count_tokens(testbed.forget, self.config.batch_size)
        together = self.scope == "global" and size.weights <= COUNTED_FROM
        return Cost(
            backward_tokens=self.gradient_passes * given.tokens,
            sweeps=SELECTION_SWEEPS * size.weights,
            held_tokens=given.largest,
            device_bytes=8 * size.largest,
            offloadable_bytes=5 * size.weights + 4 * (size.weights if together else size.largest),
        )


def mlp_gradients(testbed: Testbed, sequences: Sequences, context: Context, config: WeightConfig) -> dict[str, Tensor]:
    """Return the gradient of the summed sequence losses with respect to every MLP matrix, in float32.

    g = sum over x in `sequences` of d l(x) / d w, l(x) = mean token cross-entropy of x.
    Cost: one forward + backward pass. Memory: one float32 copy of the MLP weights (in main memory under
    `offload`), the gradient of one matrix (each is added as soon as the backward pass has it) and the activations of
    one batch.
    """
    import torch

    matrices = matrices_of(testbed.mlps)
    sums = {
        name: torch.zeros_like(matrix.weight.detach(), dtype=torch.float32, device=context.place_of(matrix.weight))
        for name, matrix in matrices.items()
    }

    def add(matrix: Matrix, gradient: Tensor) -> None:
        total = sums[matrix.name]
        total.add_(gradient.to(total.device))

    batches = list(sequences.batches(config.batch_size))
    with visited_gradients(testbed.model, list(matrices.values()), add):
        for batch in context.track(batches, "gradients"):
            sequence_losses(testbed.model, batch, tokens=config.tokens).sum().backward()
    return sums


SELECTION_SWEEPS = 12
"""Operations on each score when the top share is selected and set to zero."""


def count_weights(mlps: Sequence[MLP]) -> int:
    """Return the number of weights in all MLP matrices: what a ratio is a share of."""
    return sum(matrix.weight.numel() for matrix in matrices_of(mlps).values())
