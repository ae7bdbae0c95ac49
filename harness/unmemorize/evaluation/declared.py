"""What a metric yields, held to what it declares and to the sets that are there."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.metric import Measurement
from unmemorize.errors import PluginError

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.evaluation.metric import Metric

_CLOSE = 1e-3
"""Relative difference that the order of summation may make."""


def called(metric: Metric) -> str:
    """Return a metric in words: its name and its class."""
    return f"metric {metric.name!r} (class {type(metric).__name__})"


def check_label(metric: Metric, label: str, again: str) -> None:
    """Refuse a label under which nobody would find the metric's values.

    Raises:
        PluginError: it is another one when asked again, or does not begin with the metric's name.
    """
    if label != again:
        raise _refused(metric, f"its label is {label!r}, and then {again!r}", "one label for one testbed")
    if not label.startswith(metric.name):
        raise _refused(metric, f"its label is {label!r}", f"a text that begins with {metric.name!r}")


def checked(metric: Metric, measurement: Measurement, testbed: Testbed) -> Measurement:
    """Return a measurement with plain numbers, if it is one that the metric may yield of this testbed.

    Raises:
        PluginError: a value outside the metric's range or its own interval, a count that is none, an unknown set,
            values of single sequences that do not fit the value or the set.
    """
    plain = _plain(metric, measurement)
    for problem, expected in (
        _words(plain, metric, testbed), _numbers(plain, metric), _sequences(plain, testbed)
    ):  # fmt: skip
        if problem:
            raise _refused(metric, f"{problem} (set {plain.set!r}, part {plain.part!r})", expected)
    return plain


def _refused(metric: Metric, problem: str, expected: str) -> PluginError:
    return PluginError(
        f"{called(metric)}: {problem}",
        expected=expected,
        fix=f"correct `measure` of {type(metric).__name__}; `unmemorize check {metric.name}` shows the rest",
    )


def _plain(metric: Metric, each: Measurement) -> Measurement:
    try:
        return dataclasses.replace(
            each,
            value=_number(each.value),
            count=_count(each.count),
            low=None if each.low is None else _number(each.low),
            high=None if each.high is None else _number(each.high),
            per_sequence=None if each.per_sequence is None else tuple(map(_number, each.per_sequence)),
            ids=None if each.ids is None else tuple(map(operator.index, each.ids)),
        )
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        problem = f"a measurement that holds no plain numbers: {error}"
        raise _refused(metric, problem, "a number as value, a whole number from 0 on as count") from error


def _number(value: Any) -> float:
    """Return a number of Python, numpy or torch as a float."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _count(value: Any) -> int:
    count = operator.index(value)
    if isinstance(value, bool) or not 0 <= count < 2**63:
        raise ValueError(f"{value!r} is no count")
    return count


def _words(each: Measurement, metric: Metric, testbed: Testbed) -> tuple[str, str]:
    texts = {"set": each.set, "part": each.part, "metric": each.metric or "-", "direction": each.direction or "lower"}
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            return f"`{name}` is {text!r}", "a text"
    if texts["direction"] not in ("lower", "higher"):
        return f"`direction` is {each.direction!r}", "'lower', 'higher' or None"
    known = {*testbed.sets(), "holdout"}
    if each.set not in known and metric.kind in ("memorization", "utility"):
        return f"a measurement of the set {each.set!r}, which the testbed does not have", ", ".join(sorted(known))
    return "", ""


def _numbers(each: Measurement, metric: Metric) -> tuple[str, str]:
    low, high = metric.range
    if each.metric is None and not math.isnan(each.value) and not low - 1e-9 <= each.value <= high + 1e-9:
        return f"the value {each.value:g}", f"a value from {low:g} to {high:g}, as its `range` says"
    ends = (-math.inf if each.low is None else each.low, math.inf if each.high is None else each.high)
    slack = 1e-6 * max(1.0, abs(each.value))
    if each.value < ends[0] - slack or each.value > ends[1] + slack or ends[0] > ends[1] + slack:
        return (
            f"the value {each.value:g} with an interval from {each.low} to {each.high}",
            "a value inside its interval",
        )
    return "", ""


def _sequences(each: Measurement, testbed: Testbed) -> tuple[str, str]:
    values, ids = each.per_sequence, each.ids
    if values is None and ids is None:
        return "", ""
    if values is None or ids is None or not len(values) == len(ids) == len(set(ids)) == each.count:
        counted = [0 if part is None else len(part) for part in (values, ids)]
        return f"{counted[0]} values, {counted[1]} ids and a count of {each.count}", "one of each for each sequence"
    known = testbed.sets().get(each.set)
    strange = [] if known is None else sorted(set(ids) - set(known.ids.tolist()))
    if strange:
        return f"ids of no sequence: {', '.join(map(str, strange[:3]))}", "ids of that set's sequences"
    mean = math.fsum(values) / len(values) if values else math.nan
    if (
        each.part == "all"
        and math.isfinite(mean)
        and not math.isclose(mean, each.value, rel_tol=_CLOSE, abs_tol=_CLOSE)
    ):
        return f"the value is {each.value:g}, and the mean of its sequences {mean:g}", "the mean of its sequences"
    return "", ""
