"""Verbatim extraction: which sequences greedy decoding recites."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from unmemorize import Evaluation, Measurement, Metric, StrictConfig, Testbed, Window, mean_over_sequences


class ExtractionConfig(StrictConfig):
    """The lengths of the check. Defaults: the testbed's own (TinyMem and the paper: 50 + 50; Pythia: 32 + 40)."""

    prompt: Annotated[int, Field(ge=1)] | None = None
    """Tokens shown to the model (k in the paper), or the testbed's own."""
    suffix: Annotated[int, Field(ge=1)] | None = None
    """Tokens that must come back (n - k in the paper), or the testbed's own."""
    check: Literal["auto", "forced", "generate"] = "auto"
    """One teacher-forced pass, or real decoding; `auto` decodes only where a decode-time method is active."""


class Extraction(Metric):
    """Percent of the sequences that the model, prompted with their first tokens, continues exactly.

    (n, k) memorization of Carlini et al. 2023 (arXiv 2202.07646) and Sakarvadia et al. 2025 (arXiv 2410.02159): shown
    the first k tokens, greedy decoding gives exactly the remaining n - k. Where an artifact replaced clean text, the
    prompt is the clean one, sequences whose two suffixes are equal are left out, and `recovered` is the percent whose
    continuation is the *clean* suffix. Reported for `forget`, and apart from it for `forget_unseen`.
    """

    name = "extraction"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    Config = ExtractionConfig
    paper = "Carlini et al. 2023, arXiv 2202.07646"

    def label(self, testbed: Testbed) -> str:
        """Return `extraction@PROMPT+SUFFIX`."""
        window = self.window(testbed)
        return f"{self.name}@{window.prompt}+{window.suffix}"

    def window(self, testbed: Testbed) -> Window:
        """Return the lengths that are checked."""
        return Window(self.config.prompt or testbed.window.prompt, self.config.suffix or testbed.window.suffix)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield `extraction` and, for artifacts, `recovered` on the two forget sets."""
        testbed = evaluation.testbed
        window = self.window(testbed)
        generate = self.config.check == "generate" or (self.config.check == "auto" and bool(testbed.decoding))
        for name in ("forget", "forget_unseen"):
            if evaluation.sequences(name) is None:
                continue
            recital = evaluation.recital(name, window, generate=generate)
            ids = recital.ids.tolist()
            yield mean_over_sequences(name, ids, [100.0 * hit for hit in recital.recited.tolist()])
            if recital.recovered is not None:
                yield mean_over_sequences(
                    name,
                    ids,
                    [100.0 * hit for hit in recital.recovered.tolist()],
                    metric=f"recovered@{window.prompt}+{window.suffix}",
                    direction="higher",
                )
