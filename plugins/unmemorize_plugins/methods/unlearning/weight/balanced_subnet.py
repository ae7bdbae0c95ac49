"""BalancedSubnet (Sakarvadia et al. 2025, algorithm 2): learn which weights to remove from both losses.

Scores s of the MLP weights are trained through a straight-through mask that removes the share with the smallest |s|:

    minimize over s   -(1 - beta) * mean l(M) + beta * mean l(R),   w = w0 * mask(s)

so that what is removed is what regurgitates and does not matter elsewhere. The final mask is multiplied in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Testbed
from unmemorize.toolkit import EpochSize, MaskLearning, SubnetConfig, Term, shuffled_rows

if TYPE_CHECKING:
    import torch


class BalancedSubnetConfig(SubnetConfig):
    """Grid of Sakarvadia et al. 2025: ratio x epochs {1, 10, 20} x beta {0.5, 0.7, 0.9}, at learning rate 0.1.

    The defaults are the published best row for two layers (30 %, 0.7, 10 epochs). At the published learning rate the
    scores hardly leave their random start; on TinyMem ten times the rate, with beta 0.9, needs half the epochs.
    """

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of each MLP matrix to remove. Grid of Sakarvadia et al. 2025: 1e-4, 0.001, 0.01, 0.05, 0.1, 0.25, 0.3."""
    beta: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Weight of keeping the retain set; 1 - beta is the weight of losing the forget set."""


class BalancedSubnet(MaskLearning):
    """Learn the share of MLP weights whose removal raises the loss on the forget set and not on the retain set.

    Every step draws from both sets, so there is no step without rows of the forget set. Cost: `epochs` forward and
    backward passes over both sets, and one k-th value per matrix and step. Memory: (b + 8) |P| bytes, b to a weight of
    the model (originals; scores, momentum), and the activations of one batch.
    """

    name = "balanced_subnet"
    needs = frozenset({"forget", "retain"})
    Config = BalancedSubnetConfig
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"

    def size(self, testbed: Testbed) -> EpochSize:
        """Return the steps in which both sets are seen once, and the rows of both in a step."""
        count = len(testbed.forget) + len(testbed.retain or ())
        return EpochSize(-(-count // self.config.batch_size), sum(self.rows(testbed)))

    def epoch(self, testbed: Testbed, generator: torch.Generator) -> Iterator[list[Term]]:
        """Yield both losses, on batches of each set in proportion to its size and with one row at least."""
        assert testbed.retain is not None
        steps, (of_forget, of_retain) = self.size(testbed).steps, self.rows(testbed)
        forget = shuffled_rows(testbed.forget, of_forget, steps, generator)
        retain = shuffled_rows(testbed.retain, of_retain, steps, generator)
        for lost, kept in zip(forget, retain, strict=True):
            yield [Term(self.config.beta - 1, lost), Term(self.config.beta, kept)]

    def rows(self, testbed: Testbed) -> tuple[int, int]:
        """Return how many rows of each set a batch holds."""
        share = len(testbed.forget) / (len(testbed.forget) + len(testbed.retain or ()))
        of_forget = min(max(1, round(self.config.batch_size * share)), max(1, self.config.batch_size - 1))
        return of_forget, max(1, self.config.batch_size - of_forget)
