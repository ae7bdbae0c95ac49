"""Greedy (Maini et al. 2023): remove one weight after another, each time the one with the largest gain.

The objective is F = mean l(M) - mean l(R): a high loss on rows to forget, a low one on rows to retain. Removing the
weight w changes it by dw = -w, so to first order by

    gain(w) = -w * dF/dw

On fresh batches of M and R, the weight with the largest positive gain is set to zero; then the gradient is taken again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Context, Cost, DivergedError, Matrix, Testbed, WeightConfig, WeightRemoval
from unmemorize.toolkit import (
    Sizes,
    Term,
    count_for,
    count_shuffled_tokens,
    matrices_of,
    select_largest,
    shuffled_rows,
    visit_objective_gradients,
)

if TYPE_CHECKING:
    from torch import Tensor


class GreedyConfig(WeightConfig):
    """Grid of Sakarvadia et al. 2025: ratio from 1e-5 to 0.05, over the MLP weights."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of all MLP matrix weights together to set to zero."""
    steps: Annotated[int, Field(ge=1)] | None = 50
    """Gradients to take; each removes an equal part of the weights. None: one gradient for each weight."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows of the forget set in a gradient, and as many of the retain set; all rows of a smaller forget set."""


class Greedy(WeightRemoval):
    """Set to zero, step by step, the MLP weights whose removal raises the loss on M and not on R.

    Both sets count equally and a weight is removed once: its gain is zero from then on. With `steps=None` this is the
    definition, ratio * |P| gradients. A schedule chooses two thirds of the same weights: as many as the definition does
    on other batches. Cost: `steps` forward and backward passes over two batches. Memory: (b + 6) |P| bytes, b to a
    weight of the model (originals; gradients that become gains; flags), 4 |P| more for a ranking of up to 2^26 weights,
    and the activations of two batches.
    """

    name = "greedy"
    needs = frozenset({"forget", "retain"})
    Config = GreedyConfig
    paper = "Maini et al. 2023, arXiv 2307.09542"

    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return True at the removed weights."""
        import torch

        matrices = matrices_of(testbed.mlps)
        goals = self.schedule(sum(matrix.weight.numel() for matrix in matrices.values()))
        removed = {
            name: torch.zeros_like(matrix.weight, dtype=torch.bool, device=context.place_of(matrix.weight))
            for name, matrix in matrices.items()
        }
        done = 0
        with context.timed("attribute"), _restored(matrices, context):
            objectives = context.track(self.objectives(testbed, len(goals), context), "removing weights", len(goals))
            for step, (goal, objective) in enumerate(zip(goals, objectives, strict=True)):
                chosen = self.best(self.gains(testbed, context, objective, step), goal - done)
                for name, mask in chosen.items():
                    matrices[name].weight.data.masked_fill_(mask.to(matrices[name].weight.device), 0.0)
                    removed[name] |= mask
                done += sum(int(mask.sum()) for mask in chosen.values())
                del chosen
        context.report.notes["weights_without_gain"] = goals[-1] - done
        return removed

    def schedule(self, units: int) -> list[int]:
        """Return how many of `units` weights are gone after each step."""
        total = count_for(self.config.ratio, units, "the whole model")
        steps = min(total, self.config.steps or total)
        return [total * (step + 1) // steps for step in range(steps)]

    def objectives(self, testbed: Testbed, steps: int, context: Context) -> Iterator[list[Term]]:
        """Yield F on fresh batches of both sets, as many rows of one as of the other."""
        assert testbed.retain is not None
        size = min(self.config.batch_size, len(testbed.forget))
        forget = shuffled_rows(testbed.forget, size, steps, context.generator(self.name, "forget"))
        retain = shuffled_rows(testbed.retain, size, steps, context.generator(self.name, "retain"))
        for lost, kept in zip(forget, retain, strict=True):
            yield [Term(1.0, lost), Term(-1.0, kept)]

    def gains(self, testbed: Testbed, context: Context, objective: list[Term], step: int) -> dict[str, Tensor]:
        """Return -w * dF/dw for every MLP weight: the first-order change of F if it is set to zero."""
        import torch

        gains = dict.fromkeys(matrices_of(testbed.mlps), torch.empty(0))

        def gain(matrix: Matrix, gradient: Tensor) -> None:
            removal = gradient.float().mul_(matrix.weight.detach()).neg_()
            gains[matrix.name] = removal.to(context.place_of(matrix.weight))

        loss = visit_objective_gradients(testbed, objective, gain, self.config.tokens)
        if not torch.isfinite(loss):
            raise DivergedError("removing weights", step)
        return gains

    def best(self, gains: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Return the masks of the `count` largest gains, positive ones only."""
        chosen = select_largest(gains, count).masks
        for name in chosen:
            chosen[name] &= gains[name] > 0
        return chosen

    def cost(self, testbed: Testbed) -> Cost:
        """Return the steps over two batches, and the memory of originals, gains, ranking and flags."""
        size = Sizes.of(testbed)
        steps = len(self.schedule(size.weights))
        step = count_shuffled_tokens(
            2 * min(self.config.batch_size, len(testbed.forget)), testbed.forget, testbed.retain
        )
        ranked = 4 if size.weights <= 2**26 else 0
        return Cost(
            backward_tokens=steps * step,
            sweeps=30 * steps * size.weights,
            held_tokens=step,
            device_bytes=8 * size.largest,
            offloadable_bytes=(size.weight_bytes + 6 + ranked) * size.weights,
            advice="set fewer steps, or a smaller batch_size",
        )


@contextmanager
def _restored(matrices: Mapping[str, Matrix], context: Context) -> Iterator[None]:
    """Restore the weights at the end, from a copy in their own dtype."""
    originals = {
        name: matrix.weight.detach().to(context.place_of(matrix.weight), copy=True) for name, matrix in matrices.items()
    }
    try:
        yield
    finally:
        for name, matrix in matrices.items():
            matrix.weight.data.copy_(originals[name])
