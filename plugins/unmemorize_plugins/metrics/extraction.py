"""Verbatim extraction: which sequences greedy decoding regurgitates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from unmemorize import Evaluation, Measurement
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, forget_sets


class ExtractionConfig(WindowConfig):
    """The lengths of the check. Defaults: the testbed's own (TinyMem and the paper: 50 + 50; Pythia: 32 + 40)."""

    check: Literal["auto", "teacher_forced", "generate"] = "auto"
    """One teacher-forced pass, or real decoding; `auto` decodes only where a decode-time method is active."""


class Extraction(WindowMetric):
    """Percent of the sequences that the model, prompted with their first tokens, continues exactly.

    (n, k) memorization of Carlini et al. 2023 (arXiv 2202.07646) and Sakarvadia et al. 2025 (arXiv 2410.02159): shown
    the first k tokens, greedy decoding gives exactly the remaining n - k. Where an artifact replaced clean text, the
    prompt is the clean one, sequences whose two suffixes are equal are left out, and `recovered` is the percent whose
    continuation is the *clean* suffix. Reported separately for `forget` and `forget_unseen`.
    """

    name = "extraction"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    Config = ExtractionConfig
    paper = "Carlini et al. 2023, arXiv 2202.07646"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield `extraction` and, for artifacts, `recovered` on the two forget sets."""
        testbed = evaluation.testbed
        window = self.window(testbed)
        generate = self.config.check == "generate" or (self.config.check == "auto" and bool(testbed.decoding))
        for name in forget_sets(testbed):
            extraction = evaluation.extraction(name, window, generate=generate)
            ids = extraction.ids.tolist()
            yield mean_over_sequences(name, ids, [100.0 * hit for hit in extraction.extractable.tolist()])
            if extraction.recovered is not None:
                yield mean_over_sequences(
                    name,
                    ids,
                    [100.0 * hit for hit in extraction.recovered.tolist()],
                    metric=self.labelled("recovered", testbed),
                    direction="higher",
                )
