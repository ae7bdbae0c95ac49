"""Durable, aggregated (Zhang et al. 2022, "Neurotoxin", turned around): `durable` with one ranking for the whole model.

g = sum over x in M of d l(x) / d w. Over all MLP matrices together, the top share of |g| is set to zero.
"""

from __future__ import annotations

from torch import Tensor

from unmemorize import Context, Testbed, WeightUnlearning, mlp_gradients


class DurableAggregate(WeightUnlearning):
    """Set to zero the MLP weights with the largest gradient of the loss on the forget set, wherever they are.

    Grid of Sakarvadia et al. 2025: ratio from 1e-5 to 0.05. Cost: one forward and backward pass over the forget set and
    one k-th value. Memory: 9 |P| bytes (gradients, ranking, flags) and the activations of one batch. Earlier code
    collected the indices of all weights in Python sets.
    """

    name = "durable_aggregate"
    paper = "Zhang et al. 2022, arXiv 2206.10341"
    scope = "global"

    def score(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return |g| for every MLP matrix."""
        gradients = mlp_gradients(testbed, testbed.forget, context, self.config)
        return {name: gradient.abs_() for name, gradient in gradients.items()}
