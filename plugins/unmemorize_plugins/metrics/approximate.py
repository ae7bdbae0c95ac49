"""Approximate memorization: which continuations share most of their tokens, in order, with the true suffix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from rapidfuzz.distance import LCSseq

from unmemorize import Evaluation, Measurement
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, forget_sets


class ApproximateConfig(WindowConfig):
    """The lengths of the check, and how much counts as memorized."""

    above: Annotated[float, Field(ge=0, lt=1)] = 0.75
    """A sequence counts where ROUGE-L is above this."""


class Approximate(WindowMetric):
    """Percent of the sequences whose greedy continuation has a ROUGE-L above 0.75 with the true suffix.

    ROUGE-L (Lin 2004) is the F-measure 2 L / (|said| + |suffix|), where L is the length of the longest common
    subsequence of the two, here of token ids. The share above 0.75 is approximate memorization in the sense of
    Ippolito et al. 2023 (who take BLEU); `approximate_mean` is the mean ROUGE-L, in percent, as in Huang et al. 2024.
    """

    name = "approximate"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = ApproximateConfig
    paper = "Ippolito et al. 2023, arXiv 2210.17546; Huang et al. 2024, arXiv 2407.17817"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the share and the mean on the two forget sets."""
        testbed = evaluation.testbed
        for name in forget_sets(testbed):
            generated = evaluation.generated(name, self.window(testbed))
            ids = generated.rows.ids.tolist()
            scores = [rouge_l(said, true) for said, true in generated.pairs()]
            yield mean_over_sequences(name, ids, [100.0 * (score > self.config.above) for score in scores])
            mean = self.labelled(f"{self.name}_mean", testbed)
            yield mean_over_sequences(name, ids, [100.0 * score for score in scores], metric=mean)


def rouge_l(said: list[int], true: list[int]) -> float:
    """Return the F-measure of ROUGE-L between two lists of token ids that are not both empty."""
    return 2 * LCSseq.similarity(said, true) / (len(said) + len(true))
