"""Measure a testbed with several metrics at once, and cut the values into halves and duplication classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from unmemorize.contracts.answers import ask
from unmemorize.contracts.context import Context
from unmemorize.contracts.metric import Direction, Kind, Measurement, mean_over_sequences
from unmemorize.contracts.testbed import Testbed
from unmemorize.errors import PluginError
from unmemorize.evaluation.declared import called, check_label, checked
from unmemorize.evaluation.metric import Metric
from unmemorize.evaluation.passes import Evaluation
from unmemorize.evaluation.shared_passes import SharedPasses


class ValueKey(NamedTuple):
    """What a value is about."""

    metric: str
    set: str
    part: str


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """A measurement together with the declarations of its metric."""

    slot: ValueKey
    kind: Kind
    direction: Direction
    range: tuple[float, float]
    """That of the metric; without limits where the measurement has a label of its own."""
    measurement: Measurement


def together(_: str) -> AbstractContextManager[None]:
    """Run a metric's code as it is."""
    return nullcontext()


Alone = Callable[[str], AbstractContextManager[None]]
"""Runs a metric's code so that nothing else is changed by it; it is given the words for whose code that is."""


def evaluate(
    testbed: Testbed, metrics: Sequence[Metric], context: Context | None = None, alone: Alone = together
) -> dict[ValueKey, Measured]:
    """Return every value of every metric on `testbed`.

    Memorization values that keep their sequences are also given for two fixed halves of the set (`select` for choosing
    a configuration, `report` for showing it) and for every duplication class.

    Args:
        testbed: what is measured.
        metrics: what is measured on it.
        context: shows progress, and gives random generators to metrics that draw.
        alone: what each metric's code runs in.

    Raises:
        PluginError: a metric gives one value twice, or one that its declarations do not allow, or writes into what all
            metrics share.
    """
    evaluation = Evaluation(testbed, context)
    with alone(f"`readings` of {', '.join(map(called, metrics))}"):
        for metric in metrics:
            evaluation.expect(ask(metric, "readings", testbed))
    values: dict[ValueKey, Measured] = {}
    for metric in metrics:
        for slot, measured in _measured(evaluation, metric, alone):
            if slot in values:
                raise PluginError(
                    f"metric {metric.name!r} gives the value {tuple(slot)} twice",
                    expected="one value per metric label, set and part",
                    fix="give each measurement a `set`, `part` or `metric` of its own",
                )
            values[slot] = measured
    return values


def _measured(evaluation: Evaluation, metric: Metric, alone: Alone) -> Iterator[tuple[ValueKey, Measured]]:
    testbed, shared = evaluation.testbed, SharedPasses(evaluation)
    with alone(called(metric)):
        label = ask(metric, "label", testbed)
        measurements = ask(metric, "measure", evaluation)
        again = ask(metric, "label", testbed)
    shared.check(metric)
    check_label(metric, label, again)
    for each in measurements:
        measurement = checked(metric, each, testbed)
        for part in (measurement, *_parts(evaluation, metric, measurement)):
            slot = ValueKey(part.metric or label, part.set, part.part)
            limits = metric.range if part.metric is None else (-math.inf, math.inf)
            yield slot, Measured(slot, metric.kind, part.direction or metric.direction, limits, part)


def _parts(evaluation: Evaluation, metric: Metric, whole: Measurement) -> Iterator[Measurement]:
    if metric.kind != "memorization" or whole.per_sequence is None or whole.ids is None or whole.part != "all":
        return
    order = sorted(range(len(whole.ids)), key=lambda row: whole.ids[row])  # type: ignore[index]
    yield _subset(whole, order[0::2], "select")
    yield _subset(whole, order[1::2], "report")
    copies = _copies(evaluation, whole.set)
    classes = sorted({copies[i] for i in whole.ids if i in copies})
    if len(classes) > 1:
        for number in classes:
            rows = [row for row in order if copies.get(whole.ids[row]) == number]
            yield _subset(whole, rows, f"copies={number}")


def _copies(evaluation: Evaluation, name: str) -> dict[int, int]:
    sequences = evaluation.sequences(name)
    if sequences is None:
        return {}
    return dict(zip(sequences.ids.tolist(), sequences.copies.tolist(), strict=True))


def _subset(whole: Measurement, rows: Iterable[int], part: str) -> Measurement:
    assert whole.per_sequence is not None
    assert whole.ids is not None
    chosen = list(rows)
    values = [whole.per_sequence[row] for row in chosen]
    ids = [whole.ids[row] for row in chosen]
    subset = mean_over_sequences(whole.set, ids, values, part=part, metric=whole.metric, direction=whole.direction)
    return dataclasses.replace(subset, per_sequence=None, ids=None)
