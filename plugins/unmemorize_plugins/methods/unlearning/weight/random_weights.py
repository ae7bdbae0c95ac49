"""Random weights, the control of every weight-level method: remove the same number, chosen at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Context, Cost, StrictConfig, Testbed, WeightRemoval
from unmemorize.toolkit import Sizes, count_for, matrices_of

if TYPE_CHECKING:
    from torch import Tensor


class RandomWeightsConfig(StrictConfig):
    """How many weights to remove."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the weights of each MLP matrix to set to zero."""


class RandomWeights(WeightRemoval):
    """Set a share `ratio` of the weights of every MLP matrix to zero, drawn uniformly at random with the cell's seed.

    A method that is not better than this one does not locate memorization. Cost: none. Memory: |P| + 9 n bytes,
    n = weights of the largest matrix.
    """

    name = "random_weights"
    needs = frozenset()
    Config = RandomWeightsConfig

    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return True at the weights to remove, drawn uniformly at random."""
        import torch

        generator = context.generator(self.name)
        masks = {}
        with context.timed("attribute"):
            for name, matrix in matrices_of(testbed.mlps).items():
                units = matrix.weight.numel()
                mask = torch.zeros(units, dtype=torch.bool)
                mask[torch.randperm(units, generator=generator)[: count_for(self.config.ratio, units, name)]] = True
                masks[name] = mask.view(matrix.weight.shape)
        return masks

    def cost(self, testbed: Testbed) -> Cost:
        """Return the drawing of one order per matrix, on the CPU."""
        size = Sizes.of(testbed)
        return Cost(sweeps=40 * size.weights, device_bytes=size.largest, cpu_bytes=size.weights + 9 * size.largest)
