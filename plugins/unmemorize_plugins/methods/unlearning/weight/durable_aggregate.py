"""Durable, aggregated (Zhang et al. 2022, "Neurotoxin", turned around): `durable` with one ranking for the whole model.

    g = sum over x in M of d l(x) / d w

Over all MLP matrices together, the top share of |g| is set to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmemorize import Context, Testbed, WeightUnlearning
from unmemorize.toolkit import mlp_gradients

if TYPE_CHECKING:
    from torch import Tensor


class DurableAggregate(WeightUnlearning):
    """Set to zero the MLP weights with the largest gradient of the loss on the forget set, wherever they are.

    Grid of Sakarvadia et al. 2025: ratio from 1e-5 to 0.05. Cost: one forward and backward pass over the forget set and
    one k-th value. Memory: 5 |P| bytes (gradients, flags), 4 |P| more for a ranking of up to 2^26 weights, and the
    activations of one batch.
    """

    name = "durable_aggregate"
    paper = "Zhang et al. 2022, arXiv 2206.10341"
    scope = "global"
    gradient_passes = 1

    def score(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return |g| for every MLP matrix."""
        gradients = mlp_gradients(testbed, testbed.forget, context, self.config)
        return {name: gradient.abs_() for name, gradient in gradients.items()}
