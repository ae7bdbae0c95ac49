"""Let a method act on a testbed, check what it did, and measure: one road for runs, `mitigate` and `check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch

from unmemorize.contracts.answers import ask, surviving
from unmemorize.contracts.context import Context, MethodReport, derived_seed
from unmemorize.editing.checkpointing import checkpointed_blocks
from unmemorize.errors import (
    DataChangedError,
    DivergedError,
    LeftBehindError,
    NoOpError,
    NotFiniteError,
    StateDictError,
)
from unmemorize.evaluation.evaluate import Measured, ValueKey
from unmemorize.execution.architecture import flag_structure
from unmemorize.execution.environment import synchronize
from unmemorize.execution.memory import MemoryPeak, memory_peak
from unmemorize.execution.reference import Changes
from unmemorize.execution.report import charged, settle
from unmemorize.execution.session import LoadedTestbed, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.method import Method
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.contracts.testbed import Testbed


class Outcome(NamedTuple):
    """What a method did to a testbed."""

    testbed: Testbed
    """All of its data, and the model and the decoding that the method left."""
    after: dict[ValueKey, Measured]
    report: MethodReport
    total_seconds: float
    memory: MemoryPeak
    changes: Changes


def act(session: LoadedTestbed, method: Method, context: Context, provider: ModelProvider | None = None) -> Outcome:
    """Let `method` act on the testbed's model, check what it did, and measure it.

    The model keeps what was done to it until `session.restore()`; after an exception it is as it was before.

    Args:
        session: the testbed and what to measure.
        method: the method with its settings.
        context: seed of the cell, device, deadline, cache and progress; the rest is filled in here.
        provider: what trains the model again, for methods of the stage `train`.

    Raises:
        Skipped: the method does not apply to this testbed, or what it declares to need is not free.
        NoOpError: it changed nothing.
        DivergedError: it left values that are not finite.
        StateDictError: it left a model of another shape.
        LeftBehindError: it left hooks or a patched `forward`.
        DataChangedError: it, or a metric, wrote into the data.
        Exception: whatever the method itself raises.
    """
    testbed = session.testbed
    try:
        clock, report = _ActSeconds(lambda: synchronize(context.device)), MethodReport()
        given, view = _prepared(session, method, dataclasses.replace(context, report=report), provider, clock)
        with (
            memory_peak(given.device) as memory,
            session.isolated(f"method {method.name!r}", given.seed),
            _checkpointed(testbed, method, context),
        ):
            _timed_apply(method, view, given, clock)
        settle(method.name, report)
        total = charged(method.name, report, clock.spent, session.shared_work.reused)
        if changed := session.data.restore().sets:
            raise DataChangedError(f"method {method.name!r}", changed)
        changes = _checked(session, method, view, report)
        whole = _whole(testbed, view, report)
        after = session.measure(context, whole)
    except NotFiniteError as error:
        session.restore_later()
        raise DivergedError.left(method.name, ["the logits"]) from error
    except BaseException:
        session.restore_later()
        raise
    if session.undone:
        report.notes["undone"] = list(dict.fromkeys(session.undone))
    return Outcome(whole, after, report, total, memory, changes)


def _prepared(
    session: LoadedTestbed, method: Method, context: Context, provider: ModelProvider | None, clock: _ActSeconds
) -> tuple[Context, Testbed]:
    """Return what the method is given, and the view of the testbed that it acts on, if it applies and fits."""
    testbed = session.testbed
    with session.untouched(f"method {method.name!r} before `apply`", context.seed):
        reason = ask(method, "supports", testbed)
        if reason is not None:
            raise Skipped(reason)
        view = testbed.shown_to(method.name, method.needs)
        session.check_fits(method, view, context)
        session.warm_up()
        given = _given(session, view, method, context, provider, clock)
        flag_structure(method, testbed, given)
    return given, view


def _given(
    session: LoadedTestbed,
    view: Testbed,
    method: Method,
    context: Context,
    provider: ModelProvider | None,
    clock: _ActSeconds,
) -> Context:
    """Return the context of this act: a seed of the method's own, and what measures and trains again."""
    given = dataclasses.replace(
        context,
        seed=derived_seed(context.seed, method.name),
        synchronize=clock.synchronize,
        shared_work=session.shared_work,
    )
    session.shared_work.reused = 0.0

    def train_again(regularizer: Method) -> None:
        assert provider is not None
        view.model = provider.train(session.testbed, regularizer, dataclasses.replace(given, seed=context.seed))

    def measure(model: PreTrainedModel | None) -> dict[str, float]:
        begin = perf_counter()
        whole = _whole(session.testbed, view, given.report)
        try:
            return session.headlines(whole if model is None else dataclasses.replace(whole, model=model))
        finally:
            clock.measuring += perf_counter() - begin

    given.measure = measure
    given.train_again = train_again if provider is not None and provider.trains() else None
    return given


def _whole(testbed: Testbed, view: Testbed, report: MethodReport) -> Testbed:
    return dataclasses.replace(testbed, model=view.model, decoding=report.decoding)


def _checkpointed(testbed: Testbed, method: Method, context: Context) -> AbstractContextManager[None]:
    """Let blocks be recomputed if the context says so; a model that is trained again is another."""
    wanted = context.checkpointing and method.stage != "train"
    return checkpointed_blocks(testbed.mlps if wanted else ())


def _timed_apply(method: Method, view: Testbed, context: Context, clock: _ActSeconds) -> None:
    """Run the method on our own clock, which it does not know."""
    begin = perf_counter()
    context.synchronize()
    context.started = begin
    with surviving(method, "apply"):
        method.apply(view, context)
    clock.synchronize()
    clock.spent = perf_counter() - begin - clock.measuring


@dataclasses.dataclass(slots=True)
class _ActSeconds:
    """The seconds of an act, as they have passed."""

    synchronize: Callable[[], None]
    spent: float = 0.0
    """Without those of measuring."""
    measuring: float = 0.0


def _checked(session: LoadedTestbed, method: Method, view: Testbed, report: MethodReport) -> Changes:
    """Return what changed, if the model is still of its kind, finite, another than before, and the report readable."""
    reference = session.reference
    different = reference.other_shape(view.model)
    if different:
        raise StateDictError(method.name, different)
    left = session.keep_weights_alone(view.model)
    if left:
        raise LeftBehindError(f"method {method.name!r}", left)
    broken = [
        name for name, value in view.model.state_dict().items()
        if not torch.isfinite(value).all() and torch.isfinite(reference.original(name)).all()  # masks may hold -inf
    ]  # fmt: skip
    if broken:
        raise DivergedError.left(method.name, broken)
    changes = reference.changes(view.model)
    if changes.edited == 0 and not report.decoding:
        raise NoOpError(method.name)
    return changes
