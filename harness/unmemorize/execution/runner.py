"""Run a suite: plan it, leave out what is done, and hand the rest to an executor."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.context import Silent
from unmemorize.execution.chunks import Schedule
from unmemorize.execution.dispatcher import DEATHS, Dispatcher
from unmemorize.execution.inline import Inline
from unmemorize.execution.plan import Cell, plan, split, usual_seconds
from unmemorize.execution.portable import PortablePlugins
from unmemorize.execution.runtime import Runtime
from unmemorize.execution.supervisor import CLAIMS, ChunkTask
from unmemorize.execution.watching import ForeignProgress, Tracker
from unmemorize.files.claims import Claim
from unmemorize.registry.trackers import warn
from unmemorize.results.record import BASE, Record
from unmemorize.results.store import Contents, Store

if TYPE_CHECKING:
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.registry.manager import Registry
    from unmemorize.suite.model import Suite


class RunReport(NamedTuple):
    """What came of a run."""

    folder: Path
    keys: tuple[str, ...]
    """The keys of every planned cell, those of earlier runs included."""
    cached: int
    """Cells that earlier runs, or others meanwhile, had done."""
    done: int
    failed: int
    skipped: int
    set_aside: int
    """Damaged or impossible records that it found; their cells were run again."""
    dead: int = 0
    """Cells that were not tried again, since processes died in them."""


class HowToRun(NamedTuple):
    """What of a run is not the suite's."""

    executor: ExecutorFactory | None = None
    """Where chunks of cells run, each in a worker process there; this very process, if none is given."""
    threads: int | None = None
    """Threads that a worker process computes on; as many as torch takes where it is None."""
    retry: bool = False
    """Whether cells in which processes died are tried again."""


def run_suite(
    suite: Suite,
    registry: Registry,
    folder: Path,
    runtime: Runtime,
    how: HowToRun = HowToRun(),  # noqa: B008 - frozen
) -> RunReport:
    """Run the cells of `suite` that `folder` does not hold yet.

    Every record is on disk before the next cell starts, so that a killed run loses only the cells in progress. Failed
    cells are tried again.

    Args:
        suite: what to run.
        registry: where the plugins are.
        folder: the results folder.
        runtime: device, limits, cache, progress.
        how: where it runs, and whether everything is tried again.
    """
    cells = plan(suite, registry)
    store = Store(folder)
    store.upgrade()
    found = store.read()
    missing = split(cells, found.done_keys()).to_run
    deaths = {} if how.retry else _deaths(found)
    dead = _dead(cells, missing, deaths)
    waiting = [cell for cell in missing if cell.key not in dead]
    tracker = Tracker(registry, len(waiting))
    if waiting:
        store.check_writable()
        _run(cells, waiting, tracker, _RunInputs(registry, folder, found, runtime, how, deaths))
        _warn_of_lost({cell.key for cell in waiting} - set(store.latest()["key"]), folder)
    statuses = tracker.statuses
    return RunReport(
        folder=folder,
        keys=tuple(cell.key for cell in cells),
        cached=len(cells) - len(dead) - statuses["done"] - statuses["failed"] - statuses["skipped"],
        done=statuses["done"],
        failed=statuses["failed"],
        skipped=statuses["skipped"],
        set_aside=len(found.set_aside),
        dead=len(dead),
    )


class _RunInputs(NamedTuple):
    registry: Registry
    folder: Path
    found: Contents
    runtime: Runtime
    how: HowToRun
    deaths: Mapping[str, int]


def _run(cells: Sequence[Cell], waiting: Sequence[Cell], tracker: Tracker, given: _RunInputs) -> None:
    factory, runtime, folder = given.how.executor, given.runtime, given.folder.absolute()
    plugins = PortablePlugins.none() if factory is None else PortablePlugins.of(given.registry)
    quiet = dataclasses.replace(runtime, progress=Silent())
    task = ChunkTask(secrets.token_hex(8), plugins, quiet, folder, given.how.threads, deaths=given.deaths)
    workers = 1 if factory is None else factory.workers
    bases = _bases(cells, waiting, given.found)
    schedule = Schedule(waiting, bases, workers, usual_seconds(given.found.latest()))
    progress = ForeignProgress(runtime.progress, named=workers > 1)
    heartbeat = Claim.take(folder / CLAIMS / f"run-{task.run}")
    keys = {cell.key for cell in waiting}
    cached = [cell for cell in cells if cell.key not in keys]
    dispatcher = Dispatcher(task, schedule, tracker, progress, cached)
    try:
        dispatcher.go((lambda: Inline(given.registry, runtime)) if factory is None else factory.create, workers)
    finally:
        if heartbeat is not None:
            heartbeat.release()
        with suppress(OSError):  # other runs on the folder hold claims still
            (folder / CLAIMS).rmdir()


def _warn_of_lost(keys: Collection[str], folder: Path) -> None:
    """Say that records which this run wrote are gone: a plugin, or somebody, removed them behind its back."""
    if keys:
        warn(f"{len(keys)} records of this run are not in {folder} any more; the same command runs their cells again")


def _bases(cells: Sequence[Cell], waiting: Sequence[Cell], found: Contents) -> Mapping[str, Record]:
    """Return the records of the bases that need not run, by group."""
    missing = {cell.key for cell in waiting}
    groups = {cell.group for cell in waiting}
    there = [cell for cell in cells if cell.method == BASE and cell.group in groups and cell.key not in missing]
    records = {cell.group: found.record(cell.key) for cell in there}
    return {group: record for group, record in records.items() if record is not None}


def _deaths(found: Contents) -> dict[str, int]:
    """Return how many processes have died in cells, by key."""
    return {key: count for key, count in found.latest().select("key", "deaths").iter_rows() if count}


def _dead(cells: Sequence[Cell], missing: Sequence[Cell], deaths: Mapping[str, int]) -> set[str]:
    """Return the keys of the missing cells that are not tried again, and of those whose base is not."""
    dead = {cell.key for cell in missing if deaths.get(cell.key, 0) >= DEATHS}
    groups = {cell.group for cell in cells if cell.method == BASE and cell.key in dead}
    return dead | {cell.key for cell in missing if cell.group in groups}
