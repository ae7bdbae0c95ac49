"""Run a suite: plan it, leave out what is done, and write one record per cell as it ends."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.context import Silent
from unmemorize.errors import ConfigError
from unmemorize.execution.execute import Group
from unmemorize.execution.plan import Cell, plan, split
from unmemorize.execution.runtime import Runtime
from unmemorize.registry.hookspecs import CellEvent
from unmemorize.registry.manager import Registry
from unmemorize.results.record import BASE, Record
from unmemorize.results.store import Store

if TYPE_CHECKING:
    import polars as pl

    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.suite.model import Suite


class RunReport(NamedTuple):
    """What came of a run."""

    folder: Path
    keys: tuple[str, ...]
    """The keys of every planned cell, those of earlier runs included."""
    cached: int
    """Cells that earlier runs had done."""
    done: int
    failed: int
    skipped: int


class _Group(NamedTuple):
    cells: tuple[Cell, ...]
    base: Record | None


def run_suite(
    suite: Suite,
    registry: Registry,
    folder: Path,
    runtime: Runtime,
    executor: ExecutorFactory | None = None,
) -> RunReport:
    """Run the cells of `suite` that `folder` does not hold yet.

    Every record is on disk before the next cell starts, so that a killed run loses only the cell in progress. Failed
    cells are tried again.

    Args:
        suite: what to run.
        registry: where the plugins are.
        folder: the results folder.
        runtime: device, deadline, cache, progress.
        executor: where groups of cells run; this process, if none is given.
    """
    cells = plan(suite, registry)
    store = Store(folder)
    waiting = split(cells, store.done_keys()).to_run
    if waiting:
        store.check_writable()
    tracker = _Tracker(registry, store, len(waiting))
    groups = _groups(cells, waiting, store)
    if executor is None:
        for group in groups:
            Group(group.cells, registry, runtime, group.base).run(tracker.started, tracker.ended)
    else:
        _run_elsewhere(groups, registry, tracker, folder, runtime, executor)
    return RunReport(
        folder=folder,
        keys=tuple(cell.key for cell in cells),
        cached=len(cells) - len(waiting),
        done=tracker.statuses["done"],
        failed=tracker.statuses["failed"],
        skipped=tracker.statuses["skipped"],
    )


def _groups(cells: Sequence[Cell], waiting: Sequence[Cell], store: Store) -> list[_Group]:
    missing = {cell.key for cell in waiting}
    base_keys = {cell.group: cell.key for cell in cells if cell.method == BASE}
    grouped: dict[Any, list[Cell]] = {}
    for cell in waiting:
        grouped.setdefault(cell.group, []).append(cell)
    return [
        _Group(tuple(members), None if base_keys[group] in missing else store.record(base_keys[group]))
        for group, members in grouped.items()
    ]


class _Tracker:
    """Writes records and tells plugins about cells."""

    def __init__(self, registry: Registry, store: Store, total: int) -> None:
        self._registry, self._store, self._total = registry, store, total
        self._begun: dict[str, int] = {}
        self.statuses: Counter[str] = Counter()

    def started(self, cell: Cell) -> None:
        self._registry.notify_started(self._event(cell))

    def ended(self, cell: Cell, record: Record, rows: pl.DataFrame | None) -> None:
        self._store.append(record, rows)
        self.told(cell, record)

    def told(self, cell: Cell, record: Record) -> None:
        self.statuses[record.status] += 1
        event = self._event(cell)
        self._registry.notify_finished(
            dataclasses.replace(event, status=record.status, record=record.model_dump(mode="json"))
        )

    def _event(self, cell: Cell) -> CellEvent:
        index = self._begun.setdefault(cell.key, len(self._begun))
        return CellEvent(cell.key, cell.suite, cell.testbed, cell.method, cell.seed, index, self._total)


def _run_elsewhere(
    groups: Sequence[_Group],
    registry: Registry,
    tracker: _Tracker,
    folder: Path,
    runtime: Runtime,
    factory: ExecutorFactory,
) -> None:
    from concurrent.futures import FIRST_COMPLETED, wait

    _check_portable(registry)
    elsewhere = dataclasses.replace(runtime, progress=Silent())
    with factory.create() as executor:
        futures = {}
        for group in groups:
            tracker.started(group.cells[0])
            future = executor.submit(run_group, group.cells, group.base, registry.files, folder, elsewhere)
            futures[future] = group
        waiting = set(futures)
        try:
            while waiting:
                # A wait without an end hears no Ctrl-C once polars is imported: its handler restarts system calls.
                ended, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    by_key: Mapping[str, Cell] = {cell.key: cell for cell in futures[future].cells}
                    for record in future.result():
                        tracker.told(by_key[record.key], record)
        except KeyboardInterrupt:
            executor.shutdown(cancel_futures=True)
            raise


def run_group(
    cells: Sequence[Cell],
    base: Record | None,
    files: Sequence[Path],
    folder: Path,
    runtime: Runtime,
) -> list[Record]:
    """Run one group in a process of its own, appending to the same results folder."""
    registry = Registry.load()
    for file in files:
        registry.add_file(file)
    store = Store(folder)
    records: list[Record] = []

    def ended(_: Cell, record: Record, rows: pl.DataFrame | None) -> None:
        store.append(record, rows)
        records.append(record)

    Group(cells, registry, runtime, base).run(lambda _: None, ended)
    return records


def _check_portable(registry: Registry) -> None:
    inside = [
        info.name for info in registry.plugins() if info.distribution == "runtime" and any(info.provides.values())
    ]
    if inside:
        raise ConfigError(
            f"plugins registered at run time cannot reach other processes: {', '.join(inside)}",
            expected="the local executor, or plugins from files or installed packages",
            fix="pass plugins=['my_plugin.py'], or use executor='local'",
        )
