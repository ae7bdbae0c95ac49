"""Utility: what the model still knows about sequences that it should know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

from unmemorize import Evaluation, Measurement, Metric, Reading, Testbed
from unmemorize.toolkit import TeacherForced
from unmemorize_plugins.metrics.window import forget_sets


def _mean(measurements: list[Measurement]) -> Measurement:
    values = [measurement.value for measurement in measurements]
    count = sum(measurement.count for measurement in measurements)
    ends = [
        math.fsum(end) / len(values)
        for end in ([m.low or 0.0 for m in measurements], [m.high or 0.0 for m in measurements])
    ]
    return Measurement(set="holdout", value=math.fsum(values) / len(values), count=count, low=ends[0], high=ends[1])


class Accuracy(Metric):
    """Next-token arg-max accuracy under teacher forcing, in percent of the real tokens.

    No padding and no first token is counted. Per hold-out set, and their mean as the set `holdout`.
    """

    name = "accuracy"
    kind = "utility"
    direction = "higher"
    range = (0.0, 100.0)

    def teacher_forced(self, evaluation: Evaluation, name: str) -> TeacherForced:
        """Return the pass that is counted."""
        return evaluation.teacher_forced(name)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value per hold-out set, and their mean."""
        measured = []
        for name in evaluation.holdouts():
            teacher_forced = self.teacher_forced(evaluation, name)
            measured.append(Measurement.percent(name, int(teacher_forced.hits.sum()), int(teacher_forced.real.sum())))
        yield from measured
        if measured:
            yield _mean(measured)


class AccuracyPadded(Accuracy):
    """Accuracy that counts padding like any other token, as the published values do.

    It exists only to hold rows beside the paper's table, and means something only for a model that was trained to
    predict its padding. Sakarvadia et al. 2025.
    """

    name = "accuracy_padded"
    by_default = False
    paper = "Sakarvadia et al. 2025, arXiv 2410.02159"
    excused: ClassVar[Mapping[str, str]] = {"rows_alone": "it counts padding by definition"}

    def teacher_forced(self, evaluation: Evaluation, name: str) -> TeacherForced:
        """Return the pass in which padding is input and counted."""
        return evaluation.teacher_forced_padded(name)


def _exp(mean: float) -> float:
    return math.inf if mean >= 700 else math.exp(mean)


def _perplexity(name: str, teacher_forced: TeacherForced) -> Measurement:
    count = int(teacher_forced.real.sum())
    mean = float(teacher_forced.losses.double().sum()) / count if count else math.nan
    return Measurement(set=name, value=_exp(mean), count=count)


class Perplexity(Metric):
    """exp of the mean token cross-entropy over a whole hold-out set.

    The token losses of the set are summed, divided by its number of real tokens, and exponentiated once: the value
    does not depend on the batch size. The set `holdout` pools the tokens of all hold-outs.
    """

    name = "perplexity"
    kind = "utility"
    direction = "lower"
    range = (1.0, math.inf)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value per hold-out set, and the value over all of them."""
        total, count = 0.0, 0
        for name in evaluation.holdouts():
            teacher_forced = evaluation.teacher_forced(name)
            total += float(teacher_forced.losses.double().sum())
            count += int(teacher_forced.real.sum())
            yield _perplexity(name, teacher_forced)
        if count:
            mean = total / count
            yield Measurement(set="holdout", value=_exp(mean), count=count)


class ForgetPerplexity(Metric):
    """Token-level perplexity of the forget set, and of `forget_unseen`.

    As `perplexity`, on memorized sequences: after a good mitigation it is no longer close to 1.
    """

    name = "forget_perplexity"
    kind = "memorization"
    direction = "higher"
    range = (1.0, math.inf)

    def readings(self, testbed: Testbed) -> list[Reading]:
        """Return the whole of both forget sets."""
        return [Reading(name) for name in forget_sets(testbed)]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value for each of the two forget sets."""
        for name in forget_sets(evaluation.testbed):
            yield _perplexity(name, evaluation.teacher_forced(name))
