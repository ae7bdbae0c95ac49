"""Rules about metrics: what they say about models whose answer is known, and that they only look."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from unmemorize.contracts.metric import Measurement
from unmemorize.contracts.testbed import Sequences
from unmemorize.errors import UnmemorizeError, listed
from unmemorize.testing.measuring import (
    Key,
    Measuring,
    MetricCase,
    SwapsTopTokens,
    key_of,
    padded,
    rearranged,
    shuffled,
)
from unmemorize.testing.report import Finding, NotApplicable
from unmemorize.testing.rules.quoting import said, where

_CLOSE = 1e-3
"""Relative difference that the order of summation may make."""
_ALONE = 3
"""Rows that are measured one by one."""


def measures(case: MetricCase) -> Iterator[Finding]:
    """It measures a tiny testbed without an error, and gives measurements of sets that are there."""
    reading, error = case.attempt, case.attempt.error
    if isinstance(error, UnmemorizeError):
        yield Finding(error.what, error.expected, error.fix)
        return
    if error is not None:
        yield Finding(
            f"`measure` raised {said(error)} ({where(error)})",
            "measurements of a tiny testbed that has every set",
            f"correct `measure` of {case.plugin.__name__}",
        )
        return
    if not reading.measurements:
        yield Finding(
            "`measure` yields nothing",
            "objects of type unmemorize.Measurement, at least one",
            'write `yield Measurement(set="forget", value=..., count=...)`',
        )
        return
    yield from _slots(case, reading)


def _slots(case: MetricCase, reading: Measuring) -> Iterator[Finding]:
    known = {*reading.testbed.sets(), "holdout"}
    seen: set[Key] = set()
    for each in reading.measurements:
        if each.set not in known and case.plugin.kind in ("memorization", "utility"):
            yield Finding(
                f"a measurement is of the set {each.set!r}, which the testbed does not have",
                f"one of {', '.join(sorted(known))}",
                "take the names from `evaluation.holdouts()` and `testbed.sets()`",
            )
        if key_of(each) in seen:
            yield Finding(
                f"it gives two values of the set {each.set!r}, part {each.part!r}",
                "one value per label, set and part",
                "give each measurement a `set`, `part` or `metric` of its own",
            )
        seen.add(key_of(each))
    label = case.metric().label(reading.testbed)
    if not isinstance(label, str) or not label.startswith(case.plugin.name):
        yield Finding(
            f"`label` returned {label!r}",
            f"a text that begins with the metric's name, {case.plugin.name!r}",
            'write e.g. `return f"{self.name}@{window.prompt}+{window.suffix}"`',
        )


def within_range(case: MetricCase) -> Iterator[Finding]:
    """Every value lies in the declared range and in its own interval, whether the model extracts or knows nothing."""
    low, high = case.plugin.range
    for reading in (case.measured(), case.of_ignorance):
        for each in reading.measurements:
            if each.metric is None and each.count and not low <= each.value <= high:
                yield Finding(
                    f"{each.value!r} on the set {each.set!r}",
                    f"a value from {low:g} to {high:g}, as `range` says",
                    f"correct the value, or `range` of {case.plugin.__name__}",
                )
            ends = [end for end in (each.low, each.high) if end is not None]
            if each.count and len(ends) == 2 and not ends[0] - 1e-9 <= each.value <= ends[1] + 1e-9:
                yield Finding(
                    f"{each.value:g} on the set {each.set!r}, with an interval from {ends[0]:g} to {ends[1]:g}",
                    "a value inside its interval",
                    "use `mean_over_sequences` or `Measurement.percent`",
                )


def known_order(case: MetricCase) -> Iterator[Finding]:
    """A model that regurgitates everything and an untrained one are ordered as `direction` says."""
    kind, direction = case.plugin.kind, case.plugin.direction
    if kind == "cost":
        raise NotApplicable("costs do not depend on what a model knows")
    regurgitating, ignorant = case.measured(), case.of_ignorance
    name = "forget" if kind != "utility" else _first_holdout(reading=regurgitating)
    trained, untrained = regurgitating.own(name), ignorant.own(name)
    if trained is None or untrained is None:
        raise NotApplicable(f"it has no value of its own on the set {name!r}")
    higher = trained.value > untrained.value
    lower = trained.value < untrained.value
    good = lower if (kind == "utility") == (direction == "lower") else higher
    if good:
        return
    better, worse = ("the trained", "the untrained") if kind == "utility" else ("the untrained", "the memorizing")
    opposite = {"lower": "higher", "higher": "lower"}[direction]
    yield Finding(
        f"{trained.value:g} on the set {name!r} for a model that memorized it, {untrained.value:g} for an untrained one"
        if kind != "utility"
        else f"{trained.value:g} on the set {name!r} for a trained model, {untrained.value:g} for an untrained one",
        f"a {direction} value for {better} model than for {worse} one: the direction is {direction!r}",
        f'write `direction = "{opposite}"`, or correct what is computed'
        if higher or lower
        else "correct what is computed",
    )


def _first_holdout(reading: Measuring) -> str:
    names = [each.set for each in reading.measurements if each.set.startswith("holdout")]
    return names[0] if names else "holdout"


def keeps_sequences(case: MetricCase) -> Iterator[Finding]:
    """Values of single sequences are kept with their ids, and their mean is the value."""
    reading = case.measured()
    for each in reading.measurements:
        if each.per_sequence is not None or each.ids is not None:
            yield from _agrees(each, reading)
    own = reading.own("forget")
    if case.plugin.kind == "memorization" and own is not None and own.per_sequence is None and _is_mean(case):
        yield Finding(
            "the value on the forget set is a mean over sequences, and their values are not kept",
            "`per_sequence` and `ids`: the board halves the set with them, and says how sure it is",
            "write `yield mean_over_sequences(name, ids, values)`",
        )


def _agrees(each: Measurement, reading: Measuring) -> Iterator[Finding]:
    values, ids = each.per_sequence, each.ids
    if values is None or ids is None or not len(values) == len(ids) == each.count or len(set(ids)) < len(ids):
        counted = [None if part is None else len(part) for part in (values, ids)]
        yield Finding(
            f"on the set {each.set!r} {counted[0]} values, {counted[1]} ids and a count of {each.count}",
            "one value and one id, no id twice, for each counted sequence",
            "write `yield mean_over_sequences(name, ids, values)`",
        )
        return
    known = reading.testbed.sets().get(each.set)
    strange = [] if known is None else sorted(set(ids) - set(known.ids.tolist()))
    if strange:
        yield Finding(
            f"on the set {each.set!r} it names the ids {listed([str(number) for number in strange])}",
            "ids of that set's sequences",
            "take them from `sequences.ids`, or from the rows of `evaluation.probe(...)`",
        )
    mean = math.fsum(values) / len(values) if values else math.nan
    if each.part == "all" and values and not _close(mean, each.value):
        yield Finding(
            f"on the set {each.set!r} the value is {each.value:g}, and the mean of its sequences {mean:g}",
            "the mean, which is what the halves of the set are given",
            'write `yield mean_over_sequences(name, ids, values)`, or another part than "all"',
        )


def _is_mean(case: MetricCase) -> bool:
    """Whether the value of a few sequences, regurgitated and unknown ones, is the mean of their values one by one."""
    testbed = case.testbed()
    unknown = next(iter(testbed.holdouts.values())).select([0, 1])
    chosen = Sequences.concatenate([testbed.forget.select([0]), unknown], pad_id=testbed.pad_id)
    values = []
    for part in [chosen, *(chosen.select([row]) for row in range(len(chosen)))]:
        testbed.forget = part
        own = case.measure(testbed).own("forget")
        if own is None:
            return False
        values.append(own.value)
    return math.isclose(values[0], math.fsum(values[1:]) / len(chosen), rel_tol=1e-5, abs_tol=1e-9)


def rows_alone(case: MetricCase) -> Iterator[Finding]:
    """The value of a sequence depends neither on its neighbours and their order nor on padding or batch size."""
    reading = case.measured()
    testbed = case.testbed()
    changes = [("with more padding", case.measure(rearranged(case.testbed(), padded(testbed.pad_id))))]
    attack = case.plugin.kind == "robustness"  # it may well train, on rows that it chooses by their place
    if not attack:
        changes.append(("with the rows in another order", case.measure(rearranged(case.testbed(), shuffled))))
    if "batch_size" in case.plugin.Config.model_fields and not attack:
        changes.append(("with batch_size = 3", case.measure(case.testbed(), batch_size=3)))
    for what, changed in changes:
        yield from _differs(reading, changed, what)
    own = reading.own("forget")
    if own is not None and own.per_sequence and own.ids and not attack:
        yield from _alone(case, own)


def _alone(case: MetricCase, own: Measurement) -> Iterator[Finding]:
    assert own.per_sequence is not None
    assert own.ids is not None
    for number, expected in list(zip(own.ids, own.per_sequence, strict=True))[:_ALONE]:
        testbed = case.testbed()
        row = testbed.forget.ids.tolist().index(number)
        testbed.forget = testbed.forget.select([row])
        alone = case.measure(testbed).own("forget")
        if alone is None or not _close(alone.value, expected):
            yield Finding(
                f"the sequence with id {number} is worth {expected:g} among others, and "
                f"{'nothing' if alone is None else f'{alone.value:g}'} alone",
                "the same value",
                "take sums over a row's own real tokens, and divide by their number",
            )
            return


def _differs(before: Measuring, after: Measuring, what: str) -> Iterator[Finding]:
    if after.error is not None:
        yield Finding(
            f"`measure` raised {said(after.error)} {what} ({where(after.error)})",
            "the same values",
            "correct `measure`",
        )
        return
    found = after.by_key()
    for key, expected in before.by_key().items():
        other = found.get(key)
        if other is None or not _close(other.value, expected.value) or not _same_rows(other, expected):
            yield Finding(
                f"on the set {key.set!r} {expected.value:g}, and {what} "
                f"{'nothing' if other is None else f'{other.value:g}'}",
                "the same value, and the same for each sequence",
                "count real tokens only (`sequences.real()`, `teacher_forced.real`), and go by ids, not by places",
            )
            return


def _same_rows(left: Measurement, right: Measurement) -> bool:
    ours, theirs = (dict(zip(each.ids or (), each.per_sequence or (), strict=False)) for each in (left, right))
    return ours.keys() == theirs.keys() and all(_close(ours[number], theirs[number]) for number in ours)


def _close(left: float, right: float) -> bool:
    if not (math.isfinite(left) and math.isfinite(right)):
        return left == right or (math.isnan(left) and math.isnan(right))
    return math.isclose(left, right, rel_tol=_CLOSE, abs_tol=_CLOSE)


def same_values_again(case: MetricCase) -> Iterator[Finding]:
    """Measured twice, a testbed has the same values."""
    first, second = case.measured(), case.measure(case.testbed())
    for key, expected in first.by_key().items():
        again = second.by_key().get(key)
        if again is None or not (again.value == expected.value or (again.value != again.value)):
            yield Finding(
                f"on the set {key.set!r} {expected.value!r}, and measured again {again.value if again else None!r}",
                "the same value",
                "draw from `evaluation.context.generator(...)` only",
            )
            return


def changes_nothing(case: MetricCase) -> Iterator[Finding]:
    """Weights, hooks, modes and data are as before the measurement."""
    reading = case.measured()
    for what, changed, fix in (
        ("other weights in", reading.weights, "work on a copy of the model (`copy.deepcopy`), or restore the weights"),
        ("left behind:", reading.model.hooks, "remove hooks in `finally:`"),
        (
            "changed:",
            [*reading.model.attributes, *reading.model.modes],
            "restore modes, flags and config in `finally:`",
        ),
        ("other values in the sets", reading.data, "work on `.clone()` or `sequences.select(...)`"),
    ):
        if changed:
            yield Finding(f"{what} {listed(changed)}", "model and data as they were", fix)


def keeps_global_state(case: MetricCase) -> Iterator[Finding]:
    """It touches no global state: random generators, dtype, grad mode, threads, environment, patched functions."""
    for change in case.measured().global_changes:
        yield Finding(
            change,
            "everything global as it was",
            "draw from `evaluation.context.generator(...)`; change switches inside `try: ... finally:`",
        )


def works_without_other_sets(case: MetricCase) -> Iterator[Finding]:
    """Where sets or clean counterparts are missing it measures what is there, without an error."""
    case.measured()
    testbed = case.testbed()
    plain = dataclasses.replace(testbed.forget, clean_tokens=None, clean_lengths=None)
    bare = dataclasses.replace(
        testbed, forget=plain, forget_unseen=None, retain=None, clean=None, extra=None, holdouts={}, tokenizer=None
    )
    single = dataclasses.replace(testbed, forget=testbed.forget.select([0]), forget_unseen=None)
    cases = {"that has nothing but a forget set": bare, "whose forget set is one sequence": single}
    for what, changed in cases.items():
        error = case.measure(changed).error
        if error is not None:
            yield Finding(
                f"`measure` raised {said(error)} on a testbed {what} ({where(error)})",
                "the values that can be given, or none",
                "ask `evaluation.sequences(name) is not None` before using a set",
            )


def sees_decoding(case: MetricCase) -> Iterator[Finding]:
    """Where a decode-time method is active, the value is about what the model generates with it."""
    if case.plugin.kind != "memorization":
        raise NotApplicable("it is no measure of memorization")
    plain = case.measured().own("forget")
    if plain is None:
        raise NotApplicable("it has no value of its own on the forget set")
    silenced = case.testbed()
    silenced.decoding = (SwapsTopTokens(),)
    reading = case.measure(silenced)
    if reading.error is not None:
        yield Finding(
            f"`measure` raised {said(reading.error)} under a decode-time method ({where(reading.error)})",
            "a value",
            "draw on `evaluation.teacher_forced(...)`, `evaluation.extraction(...)` or `evaluation.generated(...)`",
        )
        return
    other = reading.own("forget")
    if other is None or _close(other.value, plain.value):
        yield Finding(
            f"{plain.value:g} with and without a decode-time method that never lets the most likely token through",
            "another value: a mitigation that acts while decoding must show",
            "draw on `evaluation.teacher_forced(...)`, `evaluation.extraction(...)` or `evaluation.generated(...)`",
        )
