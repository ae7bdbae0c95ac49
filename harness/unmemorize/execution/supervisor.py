"""Run a chunk of cells in a worker process, and see that each cell gets one honest record, whatever happens to it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from unmemorize.errors import CacheWarning, DeadlineExceeded, MemoryExceeded, RecordError
from unmemorize.execution.environment import chosen_device
from unmemorize.execution.events import Ended, Listener, Row, Steps
from unmemorize.execution.failures import Failure
from unmemorize.execution.plan import Cell
from unmemorize.execution.portable import PortablePlugins
from unmemorize.execution.recording import failed
from unmemorize.execution.runtime import Runtime
from unmemorize.execution.worker import Order, Setup
from unmemorize.execution.worker_process import WorkerProcess
from unmemorize.files.claims import Claim, is_alive
from unmemorize.results.record import Record
from unmemorize.results.shard import Shard
from unmemorize.results.store import FINISHED, Store

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 2.0
"""What a cell may take beyond its deadline, so that one that keeps it itself can say where it was."""
_LOOK_SECONDS = 5.0
"""How often a supervisor elsewhere looks whether the run goes on."""
CLAIMS = "claims"
"""The folder of claims in a results folder."""


class Watcher(Listener, Protocol):
    """Hears of cells, and of the work inside them."""

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Hear how far some work inside a cell is."""

    def stopped(self) -> bool:
        """Whether the run has ended, so that nobody waits for the cells any more."""


class Distant:
    """The watcher of a chunk that runs where nobody can be told.

    Args:
        claim: the claim that the run keeps fresh as long as it goes on.
    """

    def __init__(self, claim: Path) -> None:
        self._claim, self._looked, self._stopped = claim, time.monotonic(), False

    def started(self, cell: Cell) -> None:
        """Ignore it."""

    def acting(self, cell: Cell) -> None:
        """Ignore it."""

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Ignore it: what came of the chunk is returned."""

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Ignore it."""

    def stopped(self) -> bool:
        """Whether the run has ended, or died."""
        if not self._stopped and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            with suppress(OSError):  # a file server that is away for a moment
                self._stopped = not is_alive(self._claim)
        return self._stopped


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """A chunk of cells, and all that a supervisor must know to have it run anywhere."""

    run: str
    """The run that it belongs to: a worker that was set up for it serves the next chunk, too."""
    plugins: PortablePlugins
    runtime: Runtime
    folder: Path
    """The results folder."""
    threads: int | None
    """Threads that a worker computes on; as many as torch takes where it is None."""
    cells: tuple[Cell, ...] = ()
    """Cells of one testbed and seed."""
    base: Record | None = None
    """The record of their base cell; None where it is the base cell that is to run."""
    deaths: Mapping[str, int] = field(default_factory=dict)
    """How many processes have died in a cell, by its key."""
    again: frozenset[str] = frozenset()
    """The keys of cells that are measured again although they are done."""


def supervise(task: ChunkTask, watcher: Watcher, *, environment: Mapping[str, str] | None = None) -> list[Ended]:
    """Run a chunk in a worker process and write a record for each of its cells.

    A cell on which another run has a claim is left out, and one that is recorded already is not run again.

    Args:
        task: the chunk.
        watcher: who is told meanwhile.
        environment: variables of the worker process.

    Raises:
        StoreError: the results folder cannot be written.
        ConfigError: there is no such device here.
    """
    task = replace(task, runtime=replace(task.runtime, device=chosen_device(task.runtime.device)))
    return _Supervision(task, watcher, environment or {}).run()


def recorded(task: ChunkTask, cells: Sequence[Cell]) -> list[Ended]:
    """Return what has come of cells since they were handed out, as far as it need not be tried again."""
    contents = Store(task.folder).read()
    records = [record for cell in cells if cell.key not in task.again and (record := contents.record(cell.key))]
    return [Ended(record) for record in records if record.status in FINISHED]


def write(task: ChunkTask, ended: Ended) -> Ended:
    """Write the record of a cell that has ended, or, where that one is impossible, that it failed; return which.

    Raises:
        StoreError: the results folder cannot be written.
    """
    shard = _shard(task.folder, task.run, os.getpid())
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


def claimed(task: ChunkTask, cell: Cell) -> Claim | nullcontext[None] | None:
    """Return the claim on a cell, or None while another run holds it, or where one has finished the cell meanwhile."""
    try:
        claim = Claim.take(task.folder / CLAIMS / cell.key)
    except OSError:  # then a record cannot be written either, which is told in its place
        return nullcontext()
    if claim is not None and Store(task.folder).mentions(cell.key) and recorded(task, [cell]):
        claim.release()
        return None
    return claim


_OWN = threading.local()
"""The idle worker process of each thread: it has its testbed loaded still."""


def _worker_for(task: ChunkTask, environment: Mapping[str, str]) -> WorkerProcess:
    device, threads = task.runtime.device, int(environment.get("OMP_NUM_THREADS", 0)) or task.threads
    if ":" in device:  # it is named by its place among all that this process sees
        environment = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
    worker: WorkerProcess | None = vars(_OWN).pop("idle", None)
    wanted = (device, dict(environment), threads)
    if worker is not None and not (worker.is_alive and (worker.device, worker.environment, worker.threads) == wanted):
        worker.kill()
        worker = None
    worker = worker or WorkerProcess(device, environment, threads, task.plugins.modules)
    if worker.run != task.run:
        worker.send(Setup(task.plugins, task.runtime))
        worker.run = task.run
    return worker


@dataclass
class _Supervision:
    """One chunk in the hands of worker processes, one after the other."""

    task: ChunkTask
    watcher: Watcher
    environment: Mapping[str, str]
    ended: list[Ended] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What worker processes run on, as their records say it."""
    loaded: bool = False
    """Whether the worker has loaded the testbed."""
    since: float | None = None
    """When the time of the cell began to run."""

    def run(self) -> list[Ended]:
        if isinstance(self.watcher, Distant):  # engines start a chunk anew by themselves where a node is lost
            self.ended = recorded(self.task, self.task.cells)
        done = {ended.record.key for ended in self.ended}
        self.left = {cell.key: cell for cell in self.task.cells if cell.key not in done}
        for cell in tuple(self.left.values()):
            if self.watcher.stopped():
                break
            claim = claimed(self.task, cell)
            if claim is not None:
                with claim:
                    self._run(cell)
                if self.ended and self.ended[-1].how in ("unloaded", "died loading"):
                    break
        return self.ended

    def _run(self, cell: Cell) -> None:
        self.cell, self.since = cell, None
        self.worker = _worker_for(self.task, self.environment)
        self.worker.forget_output()
        self.worker.send(Order(cell, self.task.base))
        if self._watch():
            _OWN.idle = self.worker
        else:
            self.worker.kill()
            self.loaded = False

    def _watch(self) -> bool:
        """Listen to the worker until it is idle; return whether it is of use to others."""
        looked, useful = time.monotonic(), True
        while not self.watcher.stopped():
            message = self.worker.receive(_POLL_SECONDS)
            if message is not None:
                if message["kind"] == "idle":
                    return useful
                useful = self._hear(**message)
            elif not self.worker.is_alive:
                self._died()
                return False
            if time.monotonic() - looked > _POLL_SECONDS:
                looked = time.monotonic()
                error = self._over_limit()
                if error is not None:
                    self._end(self._failed(Failure.said(str(error), self.worker.stack())))
                    return False
        return False

    def _hear(self, kind: str, **content: Any) -> bool:
        """Take one message; return whether the worker is of use after it."""
        if kind == "started":
            self.watcher.started(self.cell)
        elif kind == "acting":
            self.since, self.loaded = time.monotonic(), True
            self.watcher.acting(self.cell)
        elif kind == "warned":
            warnings.warn(str(content["text"]), CacheWarning, stacklevel=1)
        elif kind == "steps":
            self.watcher.steps(self.cell, Steps(**content))
        elif kind == "ended" and self.cell.key in self.left:
            ended = self._told(**content)
            self._end(ended)
            return not ended.spoiled
        return True

    def _told(self, record: Any, rows: Any, how: Any, spoiled: bool) -> Ended:  # noqa: FBT001 - as it was sent
        try:
            read = Record.model_validate(record)
            self.facts = read.environment or self.facts
            return Ended(read, [tuple(row) for row in rows], how, spoiled)
        except (ValueError, TypeError) as error:
            return self._failed(Failure.of(error).also("it cannot be recorded"))

    def _end(self, ended: Ended) -> None:
        ended = write(self.task, ended)
        del self.left[self.cell.key]
        self.ended.append(ended)
        self.watcher.ended(self.cell, ended)

    def _failed(self, failure: Failure, **found: Any) -> Ended:
        return Ended(failed(self.cell, failure, self.facts, **found))

    def _over_limit(self) -> Exception | None:
        """Return the error of a cell that has used up its time, or of a worker that holds too much memory."""
        runtime, where = self.task.runtime, self._doing("")
        deadline, memory = runtime.deadline, runtime.memory
        spent = 0.0 if self.since is None else time.monotonic() - self.since
        if deadline is not None and spent > deadline + max(_GRACE_SECONDS, deadline / 10):
            return DeadlineExceeded(deadline, where)
        if memory is not None:
            used = self.worker.memory()
            if used > memory:
                return MemoryExceeded(memory, used, where)
        return None

    def _died(self) -> None:
        """Record the death of the worker as the failure of the cell that it was in."""
        if self.cell.key not in self.left:  # it has ended, and so had the cell
            return
        output = self.worker.output()
        said = f"the worker process {self.worker.ending()} while it {self._doing('ran ', 'loaded ')}{_last(output)}"
        deaths = self.task.deaths.get(self.cell.key, 0) + 1
        ended = self._failed(Failure.said(said, output), deaths=deaths)
        self._end(ended._replace(how="died" if self.loaded else "died loading"))

    def _doing(self, running: str, loading: str = "loading ") -> str:
        if self.loaded:
            return f"{running}{self.cell.method}"
        return f"{loading}the testbed {self.cell.testbed!r} (provider {self.cell.provider})"


def _last(output: str) -> str:
    lines = output.strip().splitlines()
    fatal = [line for line in lines if line.startswith("Fatal Python error")]  # before a page of stacks
    return f"; its last output: {(fatal or lines)[-1][:200]}" if lines else ""


def _frame(rows: list[Row]) -> Any:
    import polars as pl

    if not rows:
        return None
    return pl.DataFrame(
        rows,
        schema={"metric": pl.String, "set": pl.String, "id": pl.Int64, "value": pl.Float64},
        orient="row",
    )
