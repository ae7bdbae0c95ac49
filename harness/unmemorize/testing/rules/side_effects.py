"""Rules about what a method leaves alone: global state, hooks, modes, data, time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from unmemorize.contracts.cost import Cost
from unmemorize.errors import DeadlineExceeded, listed
from unmemorize.testing.report import Finding, NotApplicable
from unmemorize.testing.rules.effects import refused
from unmemorize.testing.rules.quoting import said, where
from unmemorize.testing.trial import FEW_STEPS, MethodCase, Trial
from unmemorize.testing.watching import Watch

LATE_PASSES = 2
"""Passes over all rows that a method is shown which it may still make once its time is up."""


def keeps_global_state(case: MethodCase) -> Iterator[Finding]:
    """It touches no global state: random generators, dtype, grad mode, threads, environment, patched functions."""
    yield from _global(case.trial(), "")


def _global(trial: Trial, when: str) -> Iterator[Finding]:
    for change in trial.global_changes:
        generator = "random generator" in change
        yield Finding(
            f"{change}{when}",
            "randomness from `context.generator(...)`" if generator else "everything global as it was",
            "pass `generator=context.generator(self.name)` to each random function"
            if generator
            else "change it inside `try: ... finally:`, or better not at all",
        )


def keeps_state_dict(case: MethodCase) -> Iterator[Finding]:
    """The state dict keeps its keys, shapes and dtypes, and the model its class."""
    trial = case.trial()
    if trial.flaw == "keeps_state_dict":
        yield from refused(trial)


def removes_hooks(case: MethodCase) -> Iterator[Finding]:
    """No hook, parametrization or replaced `forward` is left on the model."""
    yield from _hooks(case.trial(), "after `apply`")


def _hooks(trial: Trial, when: str) -> Iterator[Finding]:
    left = trial.model.hooks
    if left:
        yield Finding(
            f"{listed(left)} {when}",
            "the modules as they were",
            "remove hooks in `finally:`, or use `neuron_activations(...)`, which does",
        )


def restores_modes(case: MethodCase) -> Iterator[Finding]:
    """Training mode, `requires_grad`, gradients and the model's config are as before."""
    yield from _modes(case.trial(), "after `apply`")


def _modes(trial: Trial, when: str) -> Iterator[Finding]:
    left = [*trial.model.attributes, *trial.model.modes]
    if left:
        yield Finding(
            f"changed {when}: {listed(left)}",
            "modes, flags, gradients and config as they were",
            "use `gradients_of(model, weights)` and `train(...)`, which restore them, or `finally:`",
        )


def cleans_up_after_errors(case: MethodCase) -> Iterator[Finding]:
    """Stopped half-way by an exception, it leaves no hook, no changed mode and no changed global state."""
    trial = case.sound_trial()
    if [*_modes(trial, ""), *_global(trial, "")]:
        raise NotApplicable("it leaves something even without an error; see restores_modes and keeps_global_state")
    watch = trial.watch
    brief = 2 * FEW_STEPS if case.trains_again else None  # half of that is within training that is cut short
    stops = [Watch(stop_at_call=place) for place in _places(watch.calls, brief)]
    stops += [Watch(stop_at_look=place) for place in _places(watch.looks, brief)]
    if not stops:
        raise NotApplicable("it neither runs the model nor looks at its deadline")
    for stop in stops:
        trial = case.run(case.testbed(), stop)
        found = [*_hooks(trial, _when(stop)), *_modes(trial, _when(stop)), *_global(trial, f" ({_when(stop)})")]
        if found:
            yield from found
            return


def _places(count: int, most: int | None) -> list[int]:
    """Return where to stop: at the first time, half-way, and at the last time where there are no more than `most`."""
    if most is not None and count > most:
        return [1, most // 2]
    return sorted({1, (count + 1) // 2, count}) if count else []


def _when(stop: Watch) -> str:
    place = f"forward pass {stop.stop_at_call}" if stop.stop_at_call else f"look {stop.stop_at_look} at the deadline"
    return f"after an exception in {place}"


def keeps_the_data(case: MethodCase) -> Iterator[Finding]:
    """No set of sequences is changed in place."""
    trial = case.trial()
    if trial.data:
        yield Finding(
            f"these sets hold other values now: {listed(trial.data)}",
            "the data as they were: the next method is shown the same",
            "work on `.clone()`, on `sequences.select(...)`, or with `dataclasses.replace(...)`",
        )


def keeps_deadline(case: MethodCase) -> Iterator[Finding]:
    """Once its time is up it ends with `DeadlineExceeded`, after two more passes over its rows at most."""
    shown = _rows_shown(case)
    trial = case.run(case.testbed(), deadline=1e-9)
    passes = trial.watch.rows / max(1, shown)
    if isinstance(trial.error, DeadlineExceeded) and passes <= LATE_PASSES:
        return
    if trial.error is not None and not isinstance(trial.error, DeadlineExceeded):
        yield Finding(
            f"with its time used up it raised {said(trial.error)}",
            "DeadlineExceeded, as `context.track` and `context.check_deadline` raise it",
            "let that error through: catch narrower ones",
        )
    elif passes > LATE_PASSES:
        ended = "stopped" if trial.error is not None else "went on to its end"
        yield Finding(
            f"with its time used up it {ended} after {passes:.1f} passes over the {shown} rows that it is shown",
            f"DeadlineExceeded within {LATE_PASSES} passes",
            "run its loops through `context.track(...)`, or call `context.check_deadline()` in them",
        )


def _rows_shown(case: MethodCase) -> int:
    case.trial()
    sets = case.testbed().sets()
    names = case.plugin.needs & sets.keys() or sets.keys()  # training again is over all of them
    return sum(len(sets[name]) for name in names)


def declared_cost(case: MethodCase) -> Iterator[Finding]:
    """`cost`, if it is known, is a `Cost` of finite numbers, found from declared data without running anything."""
    watch = Watch()
    try:
        cost = case.cost(watch)
    except Exception as error:  # whatever a third party's code raises is a finding
        yield Finding(f"`cost` raised {said(error)} ({where(error)})", "a Cost, or None", _COST_FIX)
        return
    if cost is None:
        raise NotApplicable("it does not say what it takes")
    if not isinstance(cost, Cost):
        yield Finding(f"`cost` returned {cost!r}", "an unmemorize.Cost, or None", _COST_FIX)
        return
    numbers = {name: value for name, value in dataclasses.asdict(cost).items() if not isinstance(value, str)}
    wrong = [f"{name} = {value}" for name, value in numbers.items() if not 0 <= value < math.inf]
    if wrong:
        yield Finding(f"`cost` returned {listed(wrong)}", "finite numbers from 0 on", _COST_FIX)
    if watch.calls:
        yield Finding(f"`cost` ran the model {watch.calls} times", "a formula over sizes and rows", _COST_FIX)


_COST_FIX = "compute it from `Sizes.of(testbed)` and `count_tokens(rows, batch_size)`, or leave `cost` out"


def recordable_notes(case: MethodCase) -> Iterator[Finding]:
    """What it notes, flags and times can be written into a record."""
    trial = case.trial()
    if trial.flaw == "recordable_notes":
        yield from refused(trial)
