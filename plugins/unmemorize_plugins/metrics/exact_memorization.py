"""Exact memorization: the share of suffix tokens that the model ranks first."""

from __future__ import annotations

from collections.abc import Iterator

from unmemorize import Evaluation, Measurement
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowMetric, forget_sets


class ExactMemorization(WindowMetric):
    """Percent of the suffix tokens that are the model's first choice when everything before them is given.

    M = |{t : argmax p(. | x_<t) = x_t}| / |suffix| under teacher forcing, for each sequence, then the mean over
    sequences. A softer measure than `extraction`: one wrong token costs one token, not the whole sequence. The
    sequences and prompts are those of `extraction`.
    """

    name = "exact_memorization"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    paper = "Tirumala et al. 2022, arXiv 2205.10770"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value for each of the two forget sets."""
        window = self.window(evaluation.testbed)
        for name in forget_sets(evaluation.testbed):
            rows = evaluation.probe(name, window).rows
            wanted = rows.suffix()[:, 1:]
            hits = (evaluation.teacher_forced_window(name, window).hits & wanted).sum(dim=1)
            shares = 100.0 * hits.double() / wanted.sum(dim=1)
            yield mean_over_sequences(name, rows.ids.tolist(), shares.tolist())
