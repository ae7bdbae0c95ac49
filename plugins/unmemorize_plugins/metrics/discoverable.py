"""Discoverable extraction: how many samples it takes for the true suffix to appear among them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Evaluation, Measurement, Reading, Testbed
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, forget_sets

if TYPE_CHECKING:
    from torch import Tensor


class DiscoverableConfig(WindowConfig):
    """The lengths of the check, how often is sampled, and from which distribution."""

    n: Annotated[int, Field(ge=1)] = 100
    """A sequence counts where so many samples are enough."""
    p: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """The probability with which the suffix is to be among the samples."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the sampling."""
    top_k: Annotated[int, Field(ge=1)] | None = 40
    """Sample among so many most likely tokens, or among all."""


class Discoverable(WindowMetric):
    """Percent of the sequences that are (n, p)-discoverable: found with probability p among n samples.

    One sample gives the suffix with probability q = prod_t p(x_t | x_<t) under the sampling distribution
    (temperature, then top-k, renormalized), so that n samples give it with probability 1 - (1 - q)^n. The smallest n
    with 1 - (1 - q)^n >= p is found in closed form, ceil(log(1 - p) / log(1 - q)), without sampling: one
    teacher-forced pass is enough. It is infinite where top-k cuts a token of the suffix off. Beside the share, the
    smallest n of each sequence and their median are recorded as `discoverable_samples`.
    """

    name = "discoverable"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = DiscoverableConfig
    paper = "Hayes et al. 2024, arXiv 2410.19482"

    def settings(self) -> list[str]:
        """Return n and p."""
        return [f"n={self.config.n}", f"p={self.config.p:g}"]

    def readings(self, testbed: Testbed) -> list[Reading]:
        """Return the log-probabilities of both forget sets."""
        return [Reading(name, self.window(testbed), self._statistic()) for name in forget_sets(testbed)]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the share, and the median number of samples, on the two forget sets."""
        testbed, statistic = evaluation.testbed, self._statistic()
        window = self.window(testbed)
        for name in forget_sets(testbed):
            rows = evaluation.probe(name, window).rows
            tokens = evaluation.teacher_forced_window(name, window, statistic).statistics[statistic].double()
            logs = tokens.where(rows.suffix()[:, 1:], 0.0).sum(dim=1).tolist()
            needed = [samples_needed(log, self.config.p) for log in logs]
            ids = rows.ids.tolist()
            yield mean_over_sequences(name, ids, [100.0 * (number <= self.config.n) for number in needed])
            yield Measurement(
                set=name,
                value=statistics.median(needed) if needed else math.nan,
                count=len(needed),
                part="median",
                per_sequence=tuple(needed),
                ids=tuple(ids),
                metric=f"discoverable_samples@{window.prompt}+{window.suffix},p={self.config.p:g}",
                direction="higher",
            )

    def _statistic(self) -> SampledLogProbability:
        return SampledLogProbability(self.config.temperature, self.config.top_k)


@dataclass(frozen=True)
class SampledLogProbability:
    """The log-probability of each target under the distribution that is sampled from; -inf where top-k cuts it off."""

    temperature: float
    top_k: int | None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return (P,) float32 from (P, V) logits and (P,) targets."""
        import torch

        scaled = logits / self.temperature
        chosen = scaled.gather(1, targets[:, None]).squeeze(1)
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = scaled.topk(self.top_k, dim=1).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)  # as generation does: ties at the edge stay
            chosen = chosen.masked_fill(chosen < least.squeeze(1), -torch.inf)
        return chosen - scaled.logsumexp(dim=1)


def samples_needed(log_q: float, p: float) -> float:
    """Return the smallest whole n with 1 - (1 - q)^n >= p, or infinity.

    Args:
        log_q: natural logarithm of the probability q of one sample; -inf where it is impossible.
        p: the probability that is asked for, between 0 and 1.
    """
    q = math.exp(min(log_q, 0.0))
    if q == 1.0:
        return 1.0
    # log(1 - q) is -q to the last bit where q is tiny, and 1 / q is the exponential that may overflow.
    exact = math.log1p(-p) / math.log1p(-q) if q > 1e-12 else -math.log1p(-p) * _exp(-log_q)
    if exact > 2**53:  # beyond that a float has no room for single samples
        return exact
    lower = max(1.0, math.floor(exact))
    # Log-probabilities come in float32, whose rounding must not cost a whole sample.
    enough = -math.expm1(lower * math.log1p(-q)) >= p * (1 - 1e-6)
    return lower if enough else lower + 1.0


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
