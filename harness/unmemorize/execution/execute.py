"""Run the cells of one testbed and seed, and write one record for each as soon as it has ended."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.provider import ModelProvider
from unmemorize.errors import TestbedChangedError, UnmemorizeError
from unmemorize.evaluation.evaluate import Measured, ValueKey
from unmemorize.evaluation.metric import Metric
from unmemorize.execution.act import Outcome, act
from unmemorize.execution.environment import environment
from unmemorize.execution.plan import KEY_VERSION, Cell
from unmemorize.execution.runtime import Runtime
from unmemorize.execution.session import LoadedTestbed, Skipped
from unmemorize.models.caller import plain_torch
from unmemorize.results.record import BASE, Record, Value

if TYPE_CHECKING:
    import polars as pl

    from unmemorize.registry.manager import Registry


class Group:
    """The cells of one testbed and seed.

    Args:
        cells: the cells to run, in order; all of one testbed and seed.
        registry: where the plugins are.
        runtime: device, deadline, cache, progress.
        base: the record of this testbed's base cell, if that is already done.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        registry: Registry,
        runtime: Runtime,
        base: Record | None = None,
    ) -> None:
        self.cells, self.registry, self.runtime, self.base = cells, registry, runtime, base
        self._environment = environment(runtime.device)

    @plain_torch()
    def run(self, started: Callable[[Cell], None], ended: Callable[[Cell, Record, pl.DataFrame | None], None]) -> None:
        """Load the testbed once and run every cell, telling of each when it starts and when it has ended."""
        started(self.cells[0])
        try:
            provider, session = self._open()
            before = self._before(session)
        except Exception as error:  # a testbed that cannot be made fails its cells, not the run
            for cell in self.cells:
                ended(cell, self._failed(cell, error), None)
            return
        for number, cell in enumerate(self.cells):
            if number:
                started(cell)
            ended(cell, *self._run(cell, provider, session, before))

    def _open(self) -> tuple[ModelProvider, LoadedTestbed]:
        cell = self.cells[0]
        provider_class = self.registry.provider(cell.provider)
        provider = provider_class(provider_class.Config(**cell.provider_config))
        testbed = self.runtime.load(provider, cell.testbed, cell.seed, self.registry)
        metrics = {name: self._metric(name, settings) for name, settings in cell.metrics.items()}
        headline = {"forget": metrics[cell.memorization], "holdout": metrics[cell.utility]}
        return provider, LoadedTestbed(testbed, list(metrics.values()), headline)

    def _metric(self, name: str, settings: Mapping[str, Any]) -> Metric:
        metric_class = self.registry.metric(name)
        return metric_class(metric_class.Config(**settings))

    def _before(self, session: LoadedTestbed) -> dict[ValueKey, Value]:
        if self.base is not None:
            return {ValueKey(value.metric, value.set, value.part): value for value in self.base.values}
        measured = session.measure(self.runtime.context(self.cells[0].seed))
        self._base_measured = measured
        return joined(measured, measured)

    def _run(
        self, cell: Cell, provider: ModelProvider, session: LoadedTestbed, before: dict[ValueKey, Value]
    ) -> tuple[Record, pl.DataFrame | None]:
        try:
            if cell.method == BASE:
                return self._base_record(cell, session, before), per_sequence(self._base_measured)
            method_class = self.registry.method(cell.method)
            method = method_class(method_class.Config(**cell.method_config))
            context = self.runtime.context(cell.seed, self.runtime.deadline)
            outcome = act(session, method, context, provider)
        except Skipped as skipped:
            return self._record(cell, "skipped", session, reason=str(skipped)), None
        except Exception as error:  # a method that breaks is a failed cell, and the run goes on
            return self._failed(cell, error, session), None
        left = session.restore()
        if left:
            return self._failed(cell, TestbedChangedError(left), session), None
        return self._done(cell, session, outcome, before), per_sequence(outcome.after)

    def _base_record(self, cell: Cell, session: LoadedTestbed, before: dict[ValueKey, Value]) -> Record:
        parameters = sum(parameter.numel() for parameter in session.testbed.model.parameters())
        return self._record(cell, "done", session, values=list(before.values()), parameters=parameters, edited=0)

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

    def _failed(self, cell: Cell, error: Exception, session: LoadedTestbed | None = None) -> Record:
        text = str(error) if isinstance(error, UnmemorizeError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
        return self._record(cell, "failed", session, reason=text, traceback=trace)

    def _record(self, cell: Cell, status: str, session: LoadedTestbed | None, **fields: Any) -> Record:
        method = None if cell.method == BASE else self._class_or_none(cell.method)
        facts = {} if session is None else session.testbed.facts
        nothing: dict[str, Any] = {
            "values": [], "curve": [], "seconds": {}, "total_seconds": None, "peak_memory": None, "extra_memory": None,
            "parameters": None, "edited": None, "flags": [], "notes": {}, "reason": None, "traceback": None,
        }  # fmt: skip
        return Record(
            key=cell.key,
            key_version=KEY_VERSION,
            status=status,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            suite=cell.suite,
            testbed=cell.testbed,
            provider=cell.provider_origin,
            provider_config=cell.provider_config,
            fingerprint=cell.fingerprint,
            method=cell.method,
            method_origin=cell.method_origin,
            method_config=cell.method_config,
            stage="-" if method is None else method.stage,
            needs=[] if method is None else sorted(method.needs),
            metrics={name: dict(settings) for name, settings in cell.metrics.items()},
            metric_origins=list(cell.metric_origins),
            seed=cell.seed,
            memorization=cell.memorization if session is None else session.headline["forget"].label(session.testbed),
            utility=cell.utility if session is None else session.headline["holdout"].label(session.testbed),
            testbed_facts=facts,
            data_digest=None if session is None else session.testbed.data_digest(),
            environment=self._environment,
            **(nothing | fields),
        )

    def _class_or_none(self, name: str) -> Any:
        try:
            return self.registry.method(name)
        except UnmemorizeError:
            return None


def joined(before: Mapping[ValueKey, Value | Measured], after: Mapping[ValueKey, Measured]) -> dict[ValueKey, Value]:
    """Put the values before and after side by side."""
    values = {}
    for slot in dict.fromkeys([*before, *after]):
        old, new = _ends(before.get(slot)), _ends(after.get(slot))
        described = after.get(slot) or before[slot]
        values[slot] = Value(
            metric=slot.metric, kind=described.kind, direction=described.direction, set=slot.set, part=slot.part,
            count=described.measurement.count if isinstance(described, Measured) else described.count,
            before=old[0], before_low=old[1], before_high=old[2],
            after=new[0], after_low=new[1], after_high=new[2],
        )  # fmt: skip
    return values


def _ends(value: Value | Measured | None) -> tuple[float | None, float | None, float | None]:
    if value is None:
        return None, None, None
    if isinstance(value, Value):
        return value.before, value.before_low, value.before_high
    return value.measurement.value, value.measurement.low, value.measurement.high


def per_sequence(values: Mapping[ValueKey, Measured]) -> pl.DataFrame | None:
    """Return the kept per-sequence values as rows (metric, set, id, value)."""
    import polars as pl

    rows = [
        (slot.metric, slot.set, i, value)
        for slot, measured in values.items()
        if measured.measurement.per_sequence is not None and measured.measurement.ids is not None
        for i, value in zip(measured.measurement.ids, measured.measurement.per_sequence, strict=True)
    ]
    if not rows:
        return None
    return pl.DataFrame(
        rows,
        schema={"metric": pl.String, "set": pl.String, "id": pl.Int64, "value": pl.Float64},
        orient="row",
    )
