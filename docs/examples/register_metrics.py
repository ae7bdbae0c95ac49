"""A plugin with one metric: how many sequences begin to be regurgitated."""

from __future__ import annotations

from collections.abc import Iterator

from unmemorize import Evaluation, Measurement, Metric, Window, hookimpl
from unmemorize.toolkit import mean_over_sequences


class FirstToken(Metric):
    """Percent of the sequences whose first suffix token greedy decoding gives."""

    name = "first_token"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value for each forget set; where a decode-time method acts, by generation."""
        testbed = evaluation.testbed
        window = Window(testbed.window.prompt, 1)
        for name in ("forget", "forget_unseen"):
            if evaluation.sequences(name) is not None:
                extraction = evaluation.extraction(name, window, generate=bool(testbed.decoding))
                yield mean_over_sequences(
                    name, extraction.ids.tolist(), [100.0 * hit for hit in extraction.extractable.tolist()]
                )


@hookimpl
def register_metrics() -> list[type[Metric]]:
    """Return the metrics of this plugin."""
    return [FirstToken]
