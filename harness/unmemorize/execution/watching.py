"""Who hears of the cells of a run: plugins that follow it, progress, and the run itself, all in its own thread."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.context import Progress
from unmemorize.execution.events import Ended, Steps
from unmemorize.execution.plan import Cell
from unmemorize.execution.supervisor import Distant, Watcher
from unmemorize.registry.hookspecs import CellEvent
from unmemorize.results.record import Record

if TYPE_CHECKING:
    from unmemorize.registry.manager import Registry


class Mailbox:
    """Takes what supervisors tell in threads of this process, until the run looks into it.

    What is pickled on its way to a supervisor elsewhere arrives as a watcher that tells nobody.

    Args:
        reader: who hears of it then.
        claim: what a supervisor elsewhere looks at to know whether the run goes on.
    """

    def __init__(self, reader: Watcher, claim: Path) -> None:
        self._reader, self._claim, self._over = reader, claim, threading.Event()
        self._letters: queue.Queue[Callable[[], None]] = queue.Queue()

    def __reduce__(self) -> tuple[type[Distant], tuple[Path]]:
        return Distant, (self._claim,)

    def put(self, letter: Callable[[], None]) -> None:
        """Leave something that the run is to do."""
        self._letters.put(letter)

    def read(self, seconds: float) -> None:
        """Do the next thing, if there is one within some seconds."""
        try:
            letter = self._letters.get(timeout=seconds)
        except queue.Empty:
            return
        letter()

    def started(self, cell: Cell) -> None:
        """Pass it on."""
        self.put(partial(self._reader.started, cell))

    def acting(self, cell: Cell) -> None:
        """Pass it on."""
        self.put(partial(self._reader.acting, cell))

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Pass it on."""
        self.put(partial(self._reader.ended, cell, ended))

    def steps(self, cell: Cell, steps: Steps) -> None:
        """Pass it on."""
        self.put(partial(self._reader.steps, cell, steps))

    def close(self) -> None:
        """Let every supervisor stop."""
        self._over.set()

    def stopped(self) -> bool:
        """Whether the run has ended."""
        return self._over.is_set()


class Tracker:
    """Tells plugins about cells, and counts them."""

    def __init__(self, registry: Registry, total: int) -> None:
        self._registry, self._total = registry, total
        self._begun: dict[str, int] = {}
        self.statuses: Counter[str] = Counter()

    def add(self, cells: int) -> None:
        """Count cells that are to run beside those that were planned."""
        self._total += cells

    def started(self, cell: Cell) -> None:
        """Tell that a cell has started."""
        self._registry.notify_started(self._event(cell))

    def ended(self, cell: Cell, record: Record) -> None:
        """Tell that a cell has ended."""
        self.statuses[record.status] += 1
        fields = record.model_dump(mode="json")
        self._registry.notify_finished(dataclasses.replace(self._event(cell), status=record.status, record=fields))

    def _event(self, cell: Cell) -> CellEvent:
        index = self._begun.setdefault(cell.key, len(self._begun))
        return CellEvent(cell.key, cell.suite, cell.testbed, cell.method, cell.seed, index, self._total)


class _Line(NamedTuple):
    """A line of progress that is open."""

    context: AbstractContextManager[Callable[[int], None]]
    advance: Callable[[int], None]


class ForeignProgress:
    """Shows the progress of work that other processes do.

    Args:
        progress: where it is shown.
        named: whether each line names its cell, since several run at once.
    """

    def __init__(self, progress: Progress, *, named: bool) -> None:
        self._progress, self._named = progress, named
        self._lines: dict[tuple[str, int], _Line] = {}
        self._done: Counter[tuple[str, int]] = Counter()

    def show(self, cell: Cell, steps: Steps) -> None:
        """Show how far some work is."""
        line = (cell.key, steps.work)
        if line not in self._lines:
            words = f"{cell.method}: {steps.description}" if self._named else steps.description
            context = self._progress.task(words, steps.total)
            self._lines[line] = _Line(context, context.__enter__())
        self._lines[line].advance(steps.done - self._done[line])
        self._done[line] = steps.done
        if steps.ended:
            self._end(line)

    def close(self, cell: Cell) -> None:
        """Take away what is shown of a cell that has ended."""
        for line in [line for line in self._lines if line[0] == cell.key]:
            self._end(line)

    def _end(self, line: tuple[str, int]) -> None:
        self._lines.pop(line).context.__exit__(None, None, None)
        del self._done[line]
