"""Run cells on a testbed that stays loaded, and tell of each what came of it: exactly one record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.provider import ModelProvider
from unmemorize.errors import PluginError, ProvenanceError, listed, said_by
from unmemorize.evaluation.evaluate import Measured, ValueKey
from unmemorize.evaluation.metric import Metric
from unmemorize.execution.act import Outcome, act
from unmemorize.execution.environment import environment
from unmemorize.execution.events import Ended, Listener, Row
from unmemorize.execution.failures import Failure
from unmemorize.execution.plan import Cell
from unmemorize.execution.provenance import check_fingerprint, check_origins
from unmemorize.execution.recording import failed, record_of
from unmemorize.execution.runtime import Runtime
from unmemorize.execution.session import LoadedTestbed, Skipped
from unmemorize.models.caller import plain_torch
from unmemorize.results.record import BASE, Record, Value

if TYPE_CHECKING:
    from unmemorize.registry.manager import Registry


class _Open(NamedTuple):
    """A loaded testbed, with what made it."""

    group: str
    provider: ModelProvider
    session: LoadedTestbed


class Cells:
    """Runs cells, one after the other.

    Args:
        registry: where the plugins are.
        runtime: device, deadline, cache, progress.
        listener: who is told.
        interruptible: whether a KeyboardInterrupt is the user's Ctrl-C, and not a plugin's doing.
    """

    def __init__(
        self, registry: Registry, runtime: Runtime, listener: Listener, *, interruptible: bool = False
    ) -> None:
        self._registry, self._runtime, self._listener = registry, runtime, listener
        self._ends_all = KeyboardInterrupt if interruptible else ()
        self._environment = environment(runtime.device)
        self._loaded: _Open | None = None

    @plain_torch()
    def run(self, cell: Cell, base: Record | None) -> None:
        """Run one cell.

        Args:
            cell: the cell; its testbed is loaded, unless it is that of the cell before.
            base: the record of this testbed's base cell; None for the base cell itself.
        """
        self._listener.started(cell)
        try:
            loaded = self._open(cell)
        except BaseException as error:  # a testbed that cannot be made fails its cells, not the run
            self._reraise(error)
            self._loaded = None
            self._listener.ended(cell, Ended(failed(cell, Failure.of(error), self._environment), how="unloaded"))
            return
        self._listener.acting(cell)
        self._listener.ended(cell, self._run(cell, loaded, base))

    def _open(self, cell: Cell) -> _Open:
        if self._loaded is None or self._loaded.group != cell.group:
            self._loaded = None  # the memory of the one before is free while this one is loaded
            check_origins(cell, self._registry)
            provider_class = self._registry.provider(cell.provider)
            provider = provider_class(provider_class.Config(**cell.provider_config))
            check_fingerprint(cell, provider)
            testbed = self._runtime.load(provider, cell.testbed, cell.seed, self._registry)
            metrics = {name: self._metric(name, settings) for name, settings in cell.metrics.items()}
            headline = {"forget": metrics[cell.memorization], "holdout": metrics[cell.utility]}
            self._loaded = _Open(cell.group, provider, LoadedTestbed(testbed, list(metrics.values()), headline))
        return self._loaded

    def _metric(self, name: str, settings: Mapping[str, Any]) -> Metric:
        metric_class = self._registry.metric(name)
        return metric_class(metric_class.Config(**settings))

    def _run(self, cell: Cell, loaded: _Open, base: Record | None) -> Ended:
        """Run one cell, then see that the testbed is as it was: a cell that leaves it changed has failed."""
        try:
            ended = self._measured(cell, loaded, base)
        except BaseException as error:  # whatever a plugin raises is a failed cell, and the run goes on
            self._reraise(error)
            ended = self._failed(cell, Failure.of(error), loaded)
        left = self._left(loaded.session)
        if not left:
            return ended
        self._loaded = None
        words = f"left the testbed changed: {listed(left, most=8)}"
        reason = ended.record.reason
        failure = Failure.said(f"{reason}; it also {words}" if reason else f"{cell.method} {words}")
        return self._failed(cell, failure, loaded)._replace(spoiled=True)

    def _measured(self, cell: Cell, loaded: _Open, base: Record | None) -> Ended:
        session = loaded.session
        if cell.method == BASE:
            measured = session.measure(self._runtime.context(cell.seed))
            parameters = sum(parameter.numel() for parameter in session.testbed.model.parameters())
            values = list(joined(measured, measured).values())
            notes = {"undone": list(dict.fromkeys(session.undone))} if session.undone else {}
            record = self._record(cell, "done", session, values=values, parameters=parameters, edited=0, notes=notes)
            return Ended(record, per_sequence(measured))
        assert base is not None
        if base.data_digest not in (None, session.testbed.data_digest()):
            failure = Failure.of(ProvenanceError.of_data(cell.testbed))
            return self._failed(cell, failure, loaded)._replace(how="stale")
        check_origins(cell, self._registry)
        before = {ValueKey(value.metric, value.set, value.part): value for value in base.values}
        method_class = self._registry.method(cell.method)
        method = method_class(method_class.Config(**cell.method_config))
        try:
            outcome = act(session, method, self._runtime.context(cell.seed, self._runtime.deadline), loaded.provider)
        except Skipped as skipped:
            return Ended(self._record(cell, "skipped", session, reason=str(skipped)))
        return Ended(self._done(cell, session, outcome, before), per_sequence(outcome.after))

    def _left(self, session: LoadedTestbed) -> list[str]:
        try:
            return session.restore()
        except BaseException as error:  # what a plugin left may raise anything when it is looked at
            self._reraise(error)
            return [f"restoring it raised {type(error).__name__}: {said_by(error)}"]

    def _done(self, cell: Cell, session: LoadedTestbed, outcome: Outcome, before: dict[ValueKey, Value]) -> Record:
        report = outcome.report
        return self._record(
            cell,
            "done",
            session,
            values=list(joined(before, outcome.after).values()),
            curve=report.curve,
            seconds=report.seconds,
            total_seconds=outcome.total_seconds,
            peak_memory=outcome.memory.peak,
            extra_memory=outcome.memory.extra,
            parameters=outcome.changes.parameters,
            edited=outcome.changes.edited,
            flags=sorted(report.flags),
            notes=report.notes,
        )

    def _failed(self, cell: Cell, failure: Failure, loaded: _Open) -> Ended:
        try:
            return Ended(
                self._record(cell, "failed", loaded.session, reason=failure.reason, traceback=failure.traceback)
            )
        except BaseException as error:  # then not even what the testbed says of itself can be recorded
            self._reraise(error)
            return Ended(failed(cell, failure, self._environment))

    def _record(self, cell: Cell, status: str, session: LoadedTestbed, **found: Any) -> Record:
        testbed = session.testbed
        record = record_of(
            cell,
            status,
            self._environment,
            memorization=session.headline["forget"].label(testbed),
            utility=session.headline["holdout"].label(testbed),
            testbed_facts=testbed.facts,
            data_digest=testbed.data_digest(),
            **found,
        )
        json.dumps(record.model_dump(), default=str)  # raises here, where it is this cell's failure, and not later
        return record

    def _reraise(self, error: BaseException) -> None:
        if isinstance(error, self._ends_all):
            raise error


def joined(before: Mapping[ValueKey, Value | Measured], after: Mapping[ValueKey, Measured]) -> dict[ValueKey, Value]:
    """Put the values before and after side by side."""
    values = {}
    for slot in dict.fromkeys([*before, *after]):
        old, new = _ends(before.get(slot)), _ends(after.get(slot))
        described = after.get(slot) or before[slot]
        limits = _limits(described)
        _check_counts(slot, before.get(slot), after.get(slot))
        values[slot] = Value(
            metric=slot.metric, kind=described.kind, direction=described.direction, set=slot.set, part=slot.part,
            count=described.measurement.count if isinstance(described, Measured) else described.count,
            before=old[0], before_low=old[1], before_high=old[2],
            after=new[0], after_low=new[1], after_high=new[2],
            lowest=limits[0], highest=limits[1],
        )  # fmt: skip
    return values


def _limits(value: Value | Measured) -> tuple[float | None, float | None]:
    if isinstance(value, Value):
        return value.lowest, value.highest
    lowest, highest = value.range
    return lowest if math.isfinite(lowest) else None, highest if math.isfinite(highest) else None


def _check_counts(slot: ValueKey, before: Value | Measured | None, after: Measured | None) -> None:
    """Refuse a metric that counts other sequences after than before: they are the same ones."""
    if before is None or after is None:
        return
    counts = before.count if isinstance(before, Value) else before.measurement.count, after.measurement.count
    if counts[0] != counts[1]:
        raise PluginError(
            f"metric {slot.metric!r} counted {counts[0]} on {slot.set} ({slot.part}) before, and {counts[1]} after",
            expected="one number of sequences or tokens: the sets are the same",
            fix="count what is in the set, whatever the model does with it",
        )


def _ends(value: Value | Measured | None) -> tuple[float | None, float | None, float | None]:
    if value is None:
        return None, None, None
    if isinstance(value, Value):
        return value.before, value.before_low, value.before_high
    return value.measurement.value, value.measurement.low, value.measurement.high


def per_sequence(values: Mapping[ValueKey, Measured]) -> list[Row]:
    """Return the kept values of single sequences."""
    return [
        (slot.metric, slot.set, int(i), float(value))
        for slot, measured in values.items()
        if measured.measurement.per_sequence is not None and measured.measurement.ids is not None
        for i, value in zip(measured.measurement.ids, measured.measurement.per_sequence, strict=True)
    ]
