"""Levenshtein: how near, in token edits, the greedy continuation comes to the true suffix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from rapidfuzz.distance import Levenshtein as Edits

from unmemorize import Evaluation, Measurement
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, forget_sets


class LevenshteinConfig(WindowConfig):
    """The lengths of the check, and how near is near."""

    similarity: Annotated[float, Field(gt=0, le=1)] = 0.75
    """From which similarity on a continuation counts as loosely regurgitated."""


class Levenshtein(WindowMetric):
    """Mean similarity of greedy continuation and true suffix, in percent: 100 is verbatim.

    similarity = 1 - d / |suffix|, where d is the number of tokens to insert, delete or replace to make one of the
    other (both have the suffix's length). Beside the mean, `levenshtein_strict` is the percent of sequences at
    distance 0 (which is `extraction`), and `levenshtein_loose` the percent whose similarity is at least
    `similarity`: a mitigation that only breaks verbatim regurgitation shows in the second. The similarity is recorded
    rather than the distance, so that, as with all of these, less is less memorized.
    """

    name = "levenshtein"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = LevenshteinConfig
    paper = "Merullo et al. 2025, arXiv 2510.24256"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the mean, the strict and the loose share on the two forget sets."""
        testbed = evaluation.testbed
        strict, loose = (self.labelled(f"{self.name}_{how}", testbed) for how in ("strict", "loose"))
        for name in forget_sets(testbed):
            generated = evaluation.generated(name, self.window(testbed))
            ids = generated.rows.ids.tolist()
            alike = [Edits.normalized_similarity(said, true) for said, true in generated.pairs()]
            yield mean_over_sequences(name, ids, [100.0 * value for value in alike])
            yield mean_over_sequences(name, ids, [100.0 * (value == 1.0) for value in alike], metric=strict)
            near = [100.0 * (value >= self.config.similarity) for value in alike]
            yield mean_over_sequences(name, ids, near, metric=loose)
