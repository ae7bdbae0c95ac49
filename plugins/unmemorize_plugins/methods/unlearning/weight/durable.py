"""Durable (Zhang et al. 2022, "Neurotoxin", turned around): remove the weights with the largest gradients.

    g = sum over x in M of d l(x) / d w

Per matrix, the top share of |g| is set to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmemorize import Context, Testbed, WeightUnlearning
from unmemorize.toolkit import mlp_gradients

if TYPE_CHECKING:
    from torch import Tensor


class Durable(WeightUnlearning):
    """Set to zero, in every MLP matrix, the weights with the largest gradient of the loss on the forget set.

    The size of a gradient does not tell whether removal raises or lowers the loss; the choice is a little better than
    chance. Grid of Sakarvadia et al. 2025: ratio from 1e-5 to 0.05. Cost: one forward and backward pass over the forget
    set. Memory: 5 |P| + 8 n bytes (gradients and flags; a gradient and a ranking of the largest matrix, n weights) and
    the activations of one batch.
    """

    name = "durable"
    paper = "Zhang et al. 2022, arXiv 2206.10341"
    scope = "layer"
    gradient_passes = 1

    def score(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return |g| for every MLP matrix."""
        gradients = mlp_gradients(testbed, testbed.forget, context, self.config)
        return {name: gradient.abs_() for name, gradient in gradients.items()}
