"""Run a chunk of cells in a worker process, and see that each cell gets one honest record, whatever happens to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from unmemorize.errors import DeadlineExceeded, RecordError
from unmemorize.execution.events import Ended, Listener, Row, Steps
from unmemorize.execution.failures import Failure
from unmemorize.execution.plan import Cell
from unmemorize.execution.recording import failed
from unmemorize.execution.worker import Order
from unmemorize.execution.worker_process import WorkerProcess
from unmemorize.results.record import Record
from unmemorize.results.shard import Shard
from unmemorize.results.store import Store

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 2.0
"""What a cell may take beyond its deadline, so that one that keeps it itself can say where it was."""


class Watcher(Listener, Protocol):
    """Hears of cells, and of the work inside them."""

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Hear how far some work inside a cell is."""

    def stopped(self) -> bool:
        """Whether the run has ended, so that nobody waits for the cells any more."""


class Nobody:
    """The watcher of a chunk that runs where nobody can be told."""

    def started(self, cell: Cell) -> None:
        """Ignore it."""

    def acting(self, cell: Cell) -> None:
        """Ignore it."""

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Ignore it: what came of the chunk is returned."""

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Ignore it."""

    def stopped(self) -> bool:
        """Go on."""
        return False


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """A chunk of cells, and all that a supervisor must know to have it run anywhere."""

    order: Order
    folder: Path
    """The results folder."""
    threads: int | None
    """Threads that a worker computes on; as many as torch takes where it is None."""


def supervise(task: ChunkTask, watcher: Watcher, *, environment: Mapping[str, str] | None = None) -> list[Ended]:
    """Run a chunk in a worker process and write a record for each of its cells.

    Args:
        task: the chunk.
        watcher: who is told meanwhile.
        environment: variables of the worker process.

    Raises:
        StoreError: the results folder cannot be written.
    """
    return _Supervision(task, watcher, environment or {}).run()


_OWN = threading.local()
"""The idle worker process of each thread: it has its testbed loaded still."""


def _worker_for(task: ChunkTask, environment: Mapping[str, str]) -> WorkerProcess:
    device, threads = task.order.runtime.device, int(environment.get("OMP_NUM_THREADS", 0)) or task.threads
    idle: WorkerProcess | None = vars(_OWN).pop("idle", None)
    if idle is not None:
        if idle.is_alive and (idle.device, idle.environment, idle.threads) == (device, dict(environment), threads):
            return idle
        idle.kill()
    return WorkerProcess(device, environment, threads)


@dataclass
class _Supervision:
    """One chunk in the hands of worker processes, one after the other."""

    task: ChunkTask
    watcher: Watcher
    environment: Mapping[str, str]
    ended: list[Ended] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What worker processes run on, as their records say it."""
    current: Cell | None = None
    """The cell that the worker is in."""
    since: float | None = None
    """When the time of that cell began to run."""
    loading: bool = True
    """Whether the worker has not loaded the testbed yet."""

    def run(self) -> list[Ended]:
        self.left = {cell.key: cell for cell in self.task.order.cells}
        while self.left and not self.watcher.stopped():
            self.worker = _worker_for(self.task, self.environment)
            self.current, self.since = next(iter(self.left.values())), None
            self.loading = True
            self.worker.send(replace(self.task.order, cells=tuple(self.left.values())))
            if self._watch():
                _OWN.idle = self.worker
            else:
                self.worker.kill()
        return self.ended

    def _watch(self) -> bool:
        """Listen to the worker until it is idle; return whether it is of use to others."""
        looked = time.monotonic()
        while not self.watcher.stopped():
            message = self.worker.receive(_POLL_SECONDS)
            if message is not None:
                if message["kind"] == "idle":
                    return True
                if self._spoiled_by(message):
                    return False
            elif not self.worker.is_alive:
                self._died()
                return False
            if time.monotonic() - looked > _POLL_SECONDS:
                looked = time.monotonic()
                if self._over_limit():
                    return False
        return False

    def _spoiled_by(self, message: dict[str, Any]) -> bool:
        """Take one message; return whether the worker is of no use after it."""
        kind = message.pop("kind")
        if kind == "started":
            self.current = self.left[message["key"]]
            self.worker.forget_output()
            self.watcher.started(self.current)
        elif kind == "acting":
            self.since, self.loading = time.monotonic(), False
            self.watcher.acting(self.left[message["key"]])
        elif kind == "steps" and self.current is not None:
            self.watcher.steps(self.current, Steps(**message))
        elif kind == "ended":
            cell = self.left[message.pop("key")]
            self._end(cell, self._told(cell, message))
            return bool(message["spoiled"])
        return False

    def _told(self, cell: Cell, message: dict[str, Any]) -> Ended:
        try:
            record = Record.model_validate(message["record"])
            self.facts = record.environment or self.facts
            return Ended(record, [tuple(row) for row in message["rows"]], message["how"], message["spoiled"])
        except ValueError as error:
            return Ended(failed(cell, Failure.of(error).also("it could not be recorded"), self.facts))

    def _end(self, cell: Cell, ended: Ended) -> None:
        ended = write(self.task, ended)
        del self.left[cell.key]
        self.current = self.since = None
        self.ended.append(ended)
        self.watcher.ended(cell, ended)

    def _over_limit(self) -> bool:
        """End the worker if its cell has used up its time, and record that."""
        deadline = self.task.order.runtime.deadline
        cell = self.current
        if deadline is None or self.since is None or cell is None:
            return False
        if time.monotonic() - self.since < deadline + max(_GRACE_SECONDS, deadline / 10):
            return False
        failure = Failure.said(str(DeadlineExceeded(deadline, cell.method)), self.worker.stack())
        self._end(cell, Ended(failed(cell, failure, self.facts)))
        return True

    def _died(self) -> None:
        """Record the death of the worker as the failure of the cell that it was in, or of all if it was loading."""
        output, cell = self.worker.output(), self.current
        if cell is None:  # between two cells, it was none's fault
            return
        doing = f"ran {cell.method}"
        if self.loading:
            doing = f"loaded the testbed {cell.testbed!r} (provider {cell.provider})"
        failure = Failure.said(f"the worker process {self.worker.ending()} while it {doing}{_last(output)}", output)
        for each in list(self.left.values()) if self.loading else [cell]:
            self._end(each, Ended(failed(each, failure, self.facts), how="died"))


def write(task: ChunkTask, ended: Ended) -> Ended:
    """Write the record of a cell that has ended, or, where that one is impossible, that it failed; return which.

    Raises:
        StoreError: the results folder cannot be written.
    """
    shard = _shard(task.folder, task.order.run, os.getpid())
    try:
        shard.append(ended.record, _frame(ended.rows))
    except RecordError as error:
        ended = ended._replace(record=ended.record.as_failed(str(error)), rows=[])
        shard.append(ended.record)
    return ended


@lru_cache(maxsize=8)
def _shard(folder: Path, _run: str, _process: int) -> Shard:
    """Return the file of records of a run in this process, for all of its threads."""
    return Store(folder).shard()


def _last(output: str) -> str:
    lines = output.strip().splitlines()
    return f"; its last output: {lines[-1][:200]}" if lines else ""


def _frame(rows: list[Row]) -> Any:
    import polars as pl

    if not rows:
        return None
    return pl.DataFrame(
        rows,
        schema={"metric": pl.String, "set": pl.String, "id": pl.Int64, "value": pl.Float64},
        orient="row",
    )
