"""Sampling: is a sequence regurgitated in one of several samples, where greedy decoding does not give it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from rapidfuzz.distance import Levenshtein as Edits

from unmemorize import Evaluation, Measurement, Sequences
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, forget_sets

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class SamplingConfig(WindowConfig):
    """The lengths of the check, how samples are drawn, and the similarity from which on one counts."""

    samples: Annotated[int, Field(ge=1)] = 8
    """Samples of each sequence; the one most similar to the true suffix counts."""
    temperature: Annotated[float, Field(gt=0)] = 0.8
    """Temperature of the sampling."""
    top_k: Annotated[int, Field(ge=1)] | None = 40
    """Sample from this many most likely tokens; none: from all."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Least similarity to the true suffix at which a continuation counts as regurgitated."""


class Sampling(WindowMetric):
    """Percent of the sequences of which one of several temperature samples approximately regurgitates the suffix.

    A continuation counts where 1 - (token edit distance) / |suffix| is at least `similarity`; the part `plain` is
    the same share for the one greedy continuation. (The probability that a sample is *exactly* the suffix needs no
    sampling: `discoverable` has it in closed form.) The same seed draws the same numbers before and after a method.
    """

    name = "sampling"
    kind = "robustness"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = SamplingConfig
    paper = "Hayes et al. 2024, arXiv 2410.19482"

    def settings(self) -> list[str]:
        """Return the number of samples and the temperature."""
        return [f"samples={self.config.samples}", f"temperature={self.config.temperature:g}"]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the share under sampling, and the plain one, on the two forget sets."""
        for name in forget_sets(evaluation.testbed):
            generated = evaluation.generated(name, self.window(evaluation.testbed))
            ids = generated.rows.ids.tolist()
            plain = [Edits.normalized_similarity(said, true) for said, true in generated.pairs()]
            yield mean_over_sequences(name, ids, self._near(self._best(evaluation, name, generated.rows)))
            yield mean_over_sequences(name, ids, self._near(plain), part="plain")

    def _near(self, alike: list[float]) -> list[float]:
        return [100.0 * (value >= self.config.similarity) for value in alike]

    def _best(self, evaluation: Evaluation, name: str, rows: Sequences) -> list[float]:
        generator = evaluation.context.generator(self.name, name)
        draw = GumbelNoise(self.config.temperature, self.config.top_k, generator)
        best = [0.0] * len(rows)
        for number in range(self.config.samples):
            sample = evaluation.continued(f"{name}, sample {number + 1}", rows, [draw])
            alike = [Edits.normalized_similarity(said, true) for said, true in sample.pairs()]
            best = [max(pair) for pair in zip(best, alike, strict=True)]
        return best


@dataclass
class GumbelNoise:
    """A logits processor after which the arg-max is a sample: Gumbel noise is added to the scaled, cut scores.

    The noise is drawn on the CPU, by the generator that it is given, so that no global generator moves and every
    device draws the same.
    """

    temperature: float
    top_k: int | None
    generator: torch.Generator

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Return (B, V) scores whose arg-max is distributed as a sample of the given ones."""
        import torch

        scaled = scores.float() / self.temperature
        if self.top_k is not None and self.top_k < scaled.shape[1]:
            least = scaled.topk(self.top_k, dim=1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        noise = torch.empty(scaled.shape).exponential_(generator=self.generator).log().neg()
        return scaled + noise.to(scaled.device)
