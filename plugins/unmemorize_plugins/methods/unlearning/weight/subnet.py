"""Subnet (Sakarvadia et al. 2025, algorithm 1; Ramanujan et al. 2020): learn which weights regurgitation needs.

Scores s of the MLP weights are trained through a straight-through mask that removes the share with the smallest |s|:

    minimize over s   -mean l(M),   w = w0 * mask(s)

so that what is kept is what is *not* needed for regurgitation. The final mask is multiplied in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmemorize import Context, Cost, Testbed, WeightRemoval
from unmemorize.toolkit import SubnetConfig, Term, count_shuffled_tokens, learn_mask, mask_cost, shuffled_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Subnet(WeightRemoval):
    """Learn the share of MLP weights whose removal raises the loss on the forget set most.

    No term preserves the rest of the model: a larger ratio or more epochs soon cost accuracy. Cost: `epochs` forward
    and backward passes over the forget set, and one k-th value per matrix and step. Memory: (b + 8) |P| bytes, b to a
    weight of the model (originals; scores, momentum), and the activations of one batch.
    """

    name = "subnet"
    Config = SubnetConfig
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def masks(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return the learned mask: True at the weights to remove."""
        size, steps = self.batches(testbed)

        def epoch(generator: torch.Generator) -> Iterator[list[Term]]:
            for rows in shuffled_rows(testbed.forget, size, steps, generator):
                yield [Term(-1.0, rows)]

        return learn_mask(testbed, context, self.config, epoch, steps)

    def batches(self, testbed: Testbed) -> tuple[int, int]:
        """Return the rows of a batch, and the batches of an epoch."""
        size = min(self.config.batch_size, len(testbed.forget))
        return size, -(-len(testbed.forget) // size)

    def cost(self, testbed: Testbed) -> Cost:
        """Return the steps of all epochs, and the memory of scores, momentum and originals."""
        size, steps = self.batches(testbed)
        return mask_cost(testbed, steps * self.config.epochs, count_shuffled_tokens(testbed.forget, size))
