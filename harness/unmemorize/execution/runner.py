"""Run a suite: plan it, leave out what is done, hand out the rest in chunks, and hear of each cell as it ends."""

from __future__ import annotations

import dataclasses
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.context import Silent
from unmemorize.execution.chunks import Chunk, Schedule
from unmemorize.execution.events import Ended, Steps
from unmemorize.execution.failures import Failure
from unmemorize.execution.inline import Inline
from unmemorize.execution.plan import Cell, plan, split, usual_seconds
from unmemorize.execution.portable import PortablePlugins
from unmemorize.execution.recording import failed
from unmemorize.execution.runtime import Runtime
from unmemorize.execution.supervisor import ChunkTask, supervise, write
from unmemorize.execution.watching import ForeignProgress, Mailbox, Tracker
from unmemorize.execution.worker import Order
from unmemorize.results.record import BASE, Record
from unmemorize.results.store import Store

if TYPE_CHECKING:
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.registry.manager import Registry
    from unmemorize.suite.model import Suite

DEATHS = 2
"""How many processes may die in a cell before it stays failed."""
_LISTENING_SECONDS = 0.5
"""A wait without an end hears no Ctrl-C once polars is imported: its handler restarts system calls."""


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
    set_aside: int
    """Damaged or impossible records that it found; their cells were run again."""


def run_suite(
    suite: Suite,
    registry: Registry,
    folder: Path,
    runtime: Runtime,
    executor: ExecutorFactory | None = None,
    threads: int | None = None,
) -> RunReport:
    """Run the cells of `suite` that `folder` does not hold yet.

    Every record is on disk before the next cell starts, so that a killed run loses only the cells in progress. Failed
    cells are tried again.

    Args:
        suite: what to run.
        registry: where the plugins are.
        folder: the results folder.
        runtime: device, deadline, cache, progress.
        executor: where chunks of cells run, each in a worker process there; this very process, if none is given.
        threads: threads that a worker process computes on; as many as torch takes where it is None.
    """
    cells = plan(suite, registry)
    store = Store(folder)
    store.upgrade()
    set_aside = len(store.read().set_aside)
    waiting = split(cells, store.done_keys()).to_run
    tracker = Tracker(registry, len(waiting))
    if waiting:
        store.check_writable()
        plugins = PortablePlugins(None, (), b"") if executor is None else PortablePlugins.of(registry)
        order = Order(secrets.token_hex(8), (), None, plugins, dataclasses.replace(runtime, progress=Silent()))
        workers = 1 if executor is None else executor.workers
        schedule = Schedule(waiting, _bases(cells, waiting, store), workers, usual_seconds(store.latest()))
        progress = ForeignProgress(runtime.progress, named=workers > 1)
        run = _Dispatcher(schedule, ChunkTask(order, folder.absolute(), threads), tracker, progress)
        with Inline(registry, runtime) if executor is None else executor.create() as place:
            run.go(place, workers)
    return RunReport(
        folder=folder,
        keys=tuple(cell.key for cell in cells),
        cached=len(cells) - len(waiting),
        done=tracker.statuses["done"],
        failed=tracker.statuses["failed"],
        skipped=tracker.statuses["skipped"],
        set_aside=set_aside,
    )


def _bases(cells: Sequence[Cell], waiting: Sequence[Cell], store: Store) -> Mapping[str, Record]:
    """Return the records of the bases that need not run, by group."""
    missing = {cell.key for cell in waiting}
    groups = {cell.group for cell in waiting}
    there = [cell for cell in cells if cell.method == BASE and cell.group in groups and cell.key not in missing]
    found = {cell.group: store.record(cell.key) for cell in there}
    return {group: record for group, record in found.items() if record is not None}


class _Dispatcher:
    """A run in progress: it hands out chunks, hears of their cells, and decides what becomes of them.

    Args:
        schedule: the cells that are to run.
        task: what is the same for every chunk.
        tracker: tells plugins.
        progress: shows what worker processes do.
    """

    def __init__(self, schedule: Schedule, task: ChunkTask, tracker: Tracker, progress: ForeignProgress) -> None:
        self._schedule, self._task, self._tracker, self._progress = schedule, task, tracker, progress
        self._mailbox = Mailbox(self)
        self._out: dict[str, Cell] = {}
        """The cells that have been handed out and have not ended, by key."""
        self._deaths: Counter[str] = Counter()
        self._chunks = 0

    def go(self, place: Executor, workers: int) -> None:
        """Run everything."""
        self._place, self._workers = place, workers
        try:
            self._hand_out()
            while self._chunks:
                self._mailbox.read(_LISTENING_SECONDS)
        except BaseException:
            self._mailbox.close()
            place.shutdown(wait=False, cancel_futures=True)
            raise
        self._mailbox.close()

    def _hand_out(self, group: str | None = None) -> None:
        while self._chunks < self._workers and (chunk := self._schedule.next(group)):
            self._chunks += 1
            self._out |= {cell.key: cell for cell in chunk.cells}
            order = dataclasses.replace(self._task.order, cells=chunk.cells, base=chunk.base)
            task = dataclasses.replace(self._task, order=order)
            watcher = self if isinstance(self._place, Inline) else self._mailbox
            future = self._place.submit(supervise, task, watcher)
            future.add_done_callback(self._letter(chunk))

    def _letter(self, chunk: Chunk) -> Callable[[Future[list[Ended]]], None]:
        return lambda future: self._mailbox.put(partial(self._returned, chunk, future))

    def _returned(self, chunk: Chunk, future: Future[list[Ended]]) -> None:
        """Take what came of a chunk, as far as it was not told of already, and hand out another."""
        self._chunks -= 1
        for ended in future.result():
            if ended.record.key in self._out:
                self.ended(self._out[ended.record.key], ended)
        self._hand_out(chunk.cells[0].group)

    def started(self, cell: Cell) -> None:
        """Tell plugins."""
        self._tracker.started(cell)

    def acting(self, cell: Cell) -> None:
        """Nothing is shown of that."""

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Show them."""
        self._progress.show(cell, steps)

    def stopped(self) -> bool:
        """Go on: who asks runs in this thread."""
        return False

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Tell plugins, unless the cell is to be tried again, and release the cells that wait for it."""
        del self._out[cell.key]
        self._progress.close(cell)
        self._deaths[cell.key] += ended.how == "died"
        if ended.how == "died" and self._deaths[cell.key] < DEATHS:
            self._schedule.again(cell)
            return
        self._tracker.ended(cell, ended.record)
        if cell.method == BASE and ended.record.status == "done":
            self._schedule.base_ended(cell.group, ended.record)
        elif cell.method == BASE or ended.how == "unloaded":
            self._give_up(cell, ended)

    def _give_up(self, cell: Cell, ended: Ended) -> None:
        """Record the failure of a testbed, or of its base, as that of all cells that wait for it."""
        said = ended.record.reason or ""
        reason = said if ended.how == "unloaded" else f"the base of its testbed failed: {said}"
        failure = Failure.said(reason, ended.record.traceback or "")
        for other in self._schedule.give_up(cell.group):
            record = failed(other, failure, ended.record.environment)
            record = write(self._task, Ended(record, how=ended.how)).record
            self._tracker.started(other)
            self._tracker.ended(other, record)
