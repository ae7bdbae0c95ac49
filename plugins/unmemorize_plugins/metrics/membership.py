"""Membership inference: can the forget set be told from sequences that the model has never seen?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import ConfigError, Evaluation, Measurement, Metric, Reading, StrictConfig, Testbed
from unmemorize.toolkit import TeacherForced, mean_over_sequences, nearest
from unmemorize_plugins.metrics.window import forget_sets

if TYPE_CHECKING:
    from torch import Tensor


class MembershipConfig(StrictConfig):
    """What the forget set is compared with, and how Min-K%++ averages."""

    holdout: str | None = None
    """Name of the hold-out that serves as non-members; none: all of them together."""
    k: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Share of a sequence's tokens, the least likely ones, that Min-K%++ averages over."""


class Membership(Metric):
    """AUC of two membership inference attacks on forget set and hold-out, in percent; 50 is chance.

    The AUC is the probability that a sequence of the forget set scores higher than one of the hold-out (ties count
    half). `membership@loss` scores a sequence by its mean log-likelihood (LOSS, Yeom et al. 2018).
    `membership@min-k++` scores each token by (log p(x_t) - mu) / sigma, mean and standard deviation of log p(z) over
    the next tokens z ~ p(. | x_<t), and a sequence by the mean of its lowest k % of tokens (Min-K%++). 100 is
    complete memorization; a value far below 50 identifies members just as well, since the model was made to give them
    an unusually low likelihood. The two sets should differ in nothing but membership. The interval is DeLong's (1988).
    """

    name = "membership"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = MembershipConfig
    paper = "Yeom et al. 2018, arXiv 1709.01604; Zhang et al. 2024, arXiv 2404.02936"

    def label(self, testbed: Testbed) -> str:
        """Return the name of the LOSS attack."""
        return "membership@loss"

    def readings(self, testbed: Testbed) -> list[Reading]:
        """Return the token scores of the forget sets and the hold-outs."""
        return [Reading(name, None, token_scores) for name in (*forget_sets(testbed), *self.holdouts(testbed))]

    def holdouts(self, testbed: Testbed) -> list[str]:
        """Return the names of the sets that stand for unseen text.

        Raises:
            ConfigError: the testbed has no hold-out of the given name.
        """
        if self.config.holdout is None:
            return [f"holdout:{name}" for name in testbed.holdouts]
        if self.config.holdout not in testbed.holdouts:
            names = nearest(self.config.holdout, testbed.holdouts)
            raise ConfigError(
                f"metric.membership.holdout = {self.config.holdout!r} is no hold-out of testbed {testbed.name!r}",
                expected=f"one of {', '.join(names)}" if names else "a testbed with a hold-out; this one has none",
                fix=f'write holdout = "{names[0]}" under [metric.membership], or leave it out to take all'
                if names
                else "give the testbed a hold-out, or remove [metric.membership]",
            )
        return [f"holdout:{self.config.holdout}"]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the AUC of both attacks for each of the two forget sets; not a number without a hold-out."""
        import torch

        unseen = [self._scores(evaluation, name) for name in self.holdouts(evaluation.testbed)]
        for name in forget_sets(evaluation.testbed):
            seen = self._scores(evaluation, name)
            ids = evaluation.testbed.sets()[name].ids[_scored(evaluation.teacher_forced(name))].tolist()
            for attack, label in enumerate((None, f"membership@min-k++={100 * self.config.k:g}%")):
                negatives = torch.cat([scores[attack] for scores in unseen]) if unseen else torch.zeros(0)
                yield auc(name, ids, seen[attack], negatives, label)

    def _scores(self, evaluation: Evaluation, name: str) -> tuple[Tensor, Tensor]:
        """Return LOSS and Min-K%++ of every sequence that has a token to predict, (M,) float64 each."""
        teacher_forced = evaluation.teacher_forced(name, token_scores)
        rows = _scored(teacher_forced)
        real = teacher_forced.real[rows]
        loss = -teacher_forced.losses[rows].double().sum(dim=1) / real.sum(dim=1)
        return loss, lowest_mean(teacher_forced.statistics[token_scores][rows].double(), real, self.config.k)


def _scored(teacher_forced: TeacherForced) -> Tensor:
    return teacher_forced.real.any(dim=1)


def token_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (P,) float32 (log p(x) - mu) / sigma from (P, V) logits and (P,) targets.

    mu and sigma are the mean and standard deviation of log p(z) over z ~ p. Source: Zhang et al. 2024, equation 3.
    """
    # What a decode-time method forbids has log p = -inf; it is given a number, so that 0 times it is 0.
    logs = logits.log_softmax(dim=1).clamp(min=-1e4)
    shares = logs.exp()
    mean = (shares * logs).sum(dim=1, keepdim=True)
    deviation = (shares * (logs - mean).square()).sum(dim=1).sqrt()
    chosen = logs.gather(1, targets[:, None]).squeeze(1)
    # Where the model is certain, sigma is smaller than the rounding of log p, and only the floor keeps noise out.
    return (chosen - mean.squeeze(1)) / deviation.clamp(min=1e-3)


def lowest_mean(scores: Tensor, real: Tensor, share: float) -> Tensor:
    """Return the mean over the lowest `share` of each row's real scores (at least one of them). (M,)."""
    import torch

    counts = (share * real.sum(dim=1)).long().clamp(min=1)
    ordered = scores.masked_fill(~real, torch.inf).sort(dim=1).values
    taken = torch.arange(scores.shape[1]) < counts[:, None]
    return ordered.where(taken, 0.0).sum(dim=1) / counts


def auc(name: str, ids: list[int], seen: Tensor, unseen: Tensor, label: str | None = None) -> Measurement:
    """Return the AUC between M seen and K unseen scores, in percent; it is the mean of one value per seen sequence.

    That value is the share of unseen sequences that score lower. The interval also counts that the unseen sequences
    are a sample (DeLong et al. 1988).
    """
    if not len(seen) or not len(unseen):
        return Measurement(set=name, value=math.nan, count=0, metric=label)
    places = _places(seen, unseen)
    others = 1.0 - _places(unseen, seen)
    measured = mean_over_sequences(name, ids, [100.0 * place for place in places.tolist()], metric=label)
    variance = sum(float(part.var(correction=1)) / len(part) for part in (places, others) if len(part) > 1)
    half = 196.0 * math.sqrt(variance)
    return replace(measured, low=max(0.0, measured.value - half), high=min(100.0, measured.value + half))


def _places(scores: Tensor, others: Tensor) -> Tensor:
    """Return for each score the share of `others` below it, ties counted half."""
    import torch

    ordered = others.sort().values
    below = torch.searchsorted(ordered, scores) + torch.searchsorted(ordered, scores, right=True)
    return below.double() / (2 * len(others))
