"""A run in progress: chunks go to an executor, and what comes of their cells decides which ones go next."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial

from unmemorize.errors import UnmemorizeError
from unmemorize.execution.chunks import Schedule
from unmemorize.execution.events import Ended, Steps
from unmemorize.execution.failures import Failure
from unmemorize.execution.inline import Inline
from unmemorize.execution.plan import Cell
from unmemorize.execution.recording import failed
from unmemorize.execution.supervisor import CLAIMS, ChunkTask, recorded, supervise, write
from unmemorize.execution.watching import ForeignProgress, Mailbox, Tracker
from unmemorize.files.claims import is_alive
from unmemorize.results.record import BASE
from unmemorize.results.store import Store

DEATHS = 2
"""How many processes may die in a cell before it stays failed."""
LOSSES = 3
"""How many of an executor's workers may be lost in a cell before it fails."""
_LISTENING_SECONDS = 0.5
"""A wait without an end hears no Ctrl-C once polars is imported: its handler restarts system calls."""
_LOOK_SECONDS = 2.0
"""How often cells are looked at that another run has claimed."""


class Dispatcher:
    """Hands out chunks, hears of their cells, and decides what becomes of them.

    Args:
        task: what is the same for every chunk.
        schedule: the cells that are to run.
        tracker: tells plugins.
        progress: shows what worker processes do.
        cached: the cells that are done already.
    """

    def __init__(
        self,
        task: ChunkTask,
        schedule: Schedule,
        tracker: Tracker,
        progress: ForeignProgress,
        cached: Sequence[Cell] = (),
    ) -> None:
        self._cached = list(cached)
        self._task, self._schedule, self._tracker, self._progress = task, schedule, tracker, progress
        self._mailbox = Mailbox(self, task.folder / CLAIMS / f"run-{task.run}")
        self._out: dict[str, Cell] = {}
        """The cells that have been handed out and have not ended, by key."""
        self._elsewhere: list[Cell] = []
        """The cells that another run is at."""
        self._broken: dict[str, Ended] = {}
        """What came of the testbeds that cannot be loaded or measured, by group."""
        self._deaths = Counter(dict(task.deaths))
        self._losses: Counter[str] = Counter()
        self._chunks = 0

    def go(self, create: Callable[[], Executor], workers: int) -> None:
        """Run everything in the executor that `create` makes, so many chunks at once."""
        self._create, self._workers, self._place = create, workers, create()
        try:
            self._hand_out()
            while self._chunks or self._elsewhere:
                self._mailbox.read(_LISTENING_SECONDS)
                if not self._chunks:
                    self._look_elsewhere()
        finally:
            self._mailbox.close()
            self._place.shutdown(cancel_futures=True)

    def _hand_out(self, group: str | None = None) -> None:
        while self._chunks < self._workers and (chunk := self._schedule.next(group)):
            self._chunks += 1
            self._out |= {cell.key: cell for cell in chunk.cells}
            task = dataclasses.replace(self._task, cells=chunk.cells, base=chunk.base, deaths=dict(self._deaths))
            future = self._submitted(task)
            future.add_done_callback(self._letter(chunk.cells))

    def _submitted(self, task: ChunkTask) -> Future[list[Ended]]:
        if isinstance(self._place, Inline):
            return self._place.submit(supervise, task, self)
        try:
            return self._place.submit(supervise, task, self._mailbox)
        except BrokenExecutor:  # a worker of it was lost, and with it the whole executor: another one serves as well
            self._place.shutdown(wait=False)
            self._place = self._create()
            return self._place.submit(supervise, task, self._mailbox)

    def _letter(self, cells: Sequence[Cell]) -> Callable[[Future[list[Ended]]], None]:
        return lambda future: self._mailbox.put(partial(self._returned, cells, future))

    def _returned(self, cells: Sequence[Cell], future: Future[list[Ended]]) -> None:
        """Take what came of a chunk, as far as it was not told of already, and hand out another."""
        self._chunks -= 1
        error = None if future.cancelled() else future.exception()
        if isinstance(error, UnmemorizeError):
            raise error
        for ended in recorded(self._task, cells) if error or future.cancelled() else future.result():
            if ended.record.key in self._out:
                self.ended(self._out[ended.record.key], ended)
        left = [cell for cell in cells if self._out.pop(cell.key, None) is not None]
        for cell in left:  # they run in this order: a lost worker was in the first of them
            self._not_run(cell, error if cell is left[0] else None)
        self._hand_out(cells[0].group)

    def _not_run(self, cell: Cell, error: BaseException | None) -> None:
        """Decide about a cell of a chunk that has ended without it."""
        if cell.group in self._broken:
            self._fail_like(cell, self._broken[cell.group])
        elif error is None:  # another run has claimed it, its testbed could not be loaded, or its turn never came
            self._elsewhere.append(cell)
        else:
            self._losses[cell.key] += 1
            if self._losses[cell.key] < LOSSES:
                self._elsewhere.append(cell)
            else:
                failure = Failure.of(error)
                lost = failed(cell, failure._replace(reason=f"the executor lost it: {failure.reason}"), {})
                ended = write(self._task, Ended(lost))
                self._out[cell.key] = cell
                self.ended(cell, ended)

    def _look_elsewhere(self) -> None:
        """Take the cells that no other run is at any more: done, or to be run here."""
        looked = [(cell, is_alive(self._task.folder / CLAIMS / cell.key)) for cell in self._elsewhere]
        still = [cell for cell, alive in looked if alive]
        found = Store(self._task.folder).read()  # after that: a claim is released when the record is written
        for cell in (cell for cell, alive in looked if not alive):
            record = found.record(cell.key)
            if record is None or record.status == "failed":
                self._schedule.again(cell)
            elif cell.method == BASE:
                self._schedule.base_ended(cell.group, record)
        self._elsewhere = still
        self._hand_out()
        if still and not self._chunks:
            time.sleep(_LOOK_SECONDS)

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
        if ended.how in ("died", "died loading"):
            self._deaths[cell.key] += 1
            if self._deaths[cell.key] < DEATHS:
                self._schedule.again(cell)
                return
        if ended.how == "stale" and self._measures_again(cell):
            return
        self._tracker.ended(cell, ended.record)
        if ended.how in ("unloaded", "died loading") or (cell.method == BASE and ended.record.status != "done"):
            self._broken[cell.group] = ended
            for other in self._schedule.give_up(cell.group):
                self._fail_like(other, ended)
        elif cell.method == BASE:
            self._schedule.base_ended(cell.group, ended.record)

    def _measures_again(self, cell: Cell) -> bool:
        """Run a group again whose base was measured on other data by an earlier run; return whether it was."""
        earlier = [other for other in self._cached if other.group == cell.group]
        if earlier and earlier[0].method == BASE:
            self._cached = [other for other in self._cached if other.group != cell.group]
            self._tracker.add(len(earlier))
            again = self._task.again.union(other.key for other in earlier)
            self._task = dataclasses.replace(self._task, again=again)
            self._schedule.measure_again(earlier)
        elif self._schedule.has_base(cell.group):
            return False
        self._schedule.again(cell)
        return True

    def _fail_like(self, cell: Cell, ended: Ended) -> None:
        """Record the failure of a testbed, or of its base, as that of a cell that needs it."""
        said = ended.record.reason or ""
        reason = said if ended.how in ("unloaded", "died loading") else f"the base of its testbed failed: {said}"
        failure = Failure.said(reason, ended.record.traceback or "")
        record = write(self._task, Ended(failed(cell, failure, ended.record.environment))).record
        self._tracker.started(cell)
        self._tracker.ended(cell, record)
