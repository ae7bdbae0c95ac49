"""Subnet (Sakarvadia et al. 2025, algorithm 1; Ramanujan et al. 2020): learn which weights regurgitation needs.

Scores s of the MLP weights are trained through a straight-through mask that removes the share with the smallest |s|:

    minimize over s   -mean l(M),   w = w0 * mask(s)

so that what is kept is what is *not* needed for regurgitation. The final mask is multiplied in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unmemorize import Testbed
from unmemorize.toolkit import EpochSize, MaskLearning, SubnetConfig, Term, shuffled_rows

if TYPE_CHECKING:
    import torch


class Subnet(MaskLearning):
    """Learn the share of MLP weights whose removal raises the loss on the forget set most.

    No term preserves the rest of the model: a larger ratio or more epochs soon cost accuracy. Cost: `epochs` forward
    and backward passes over the forget set, and one k-th value per matrix and step. Memory: (b + 8) |P| bytes, b to a
    weight of the model (originals; scores, momentum), and the activations of one batch.
    """

    name = "subnet"
    Config = SubnetConfig
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def size(self, testbed: Testbed) -> EpochSize:
        """Return the batches of the forget set."""
        rows = min(self.config.batch_size, len(testbed.forget))
        return EpochSize(-(-len(testbed.forget) // rows), rows)

    def epoch(self, testbed: Testbed, generator: torch.Generator) -> Iterator[list[Term]]:
        """Yield the loss on a batch, to be raised."""
        steps, rows = self.size(testbed)
        for batch in shuffled_rows(testbed.forget, rows, steps, generator):
            yield [Term(-1.0, batch)]
