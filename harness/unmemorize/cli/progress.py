"""Progress on a terminal: the cells of the run, and the work inside the current one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unmemorize.cli.echo import echo
from unmemorize.cli.streams import WIDEST, window_width
from unmemorize.registry.hookspecs import CellEvent, hookimpl
from unmemorize.untrusted import line

QUIET_SECONDS = 10.0
"""How often a line is written where there is no terminal to draw on."""


class TerminalProgress:
    """Draws two bars on a terminal; writes a line now and then elsewhere.

    It is a progress sink for the core and a plugin for the cells.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._console = Console(stderr=True, width=window_width(WIDEST) if self._live else WIDEST)
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=28),
            MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=self._console, transient=True,
        )  # fmt: skip
        self._cells: TaskID | None = None
        self._running: dict[str, str] = {}
        self._ended = 0

    def __enter__(self) -> TerminalProgress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Open one line of progress inside the current cell."""
        if not self._live:
            with _lines(description, total) as advance:
                yield advance
            return
        bar = self._bars.add_task(f"  {line(description)}", total=total)
        try:
            yield lambda steps: self._bars.advance(bar, steps)
        finally:
            self._bars.remove_task(bar)

    @hookimpl
    def cell_started(self, event: CellEvent) -> None:
        """Show which cell is running."""
        if not self._live:
            return
        self._running[event.key] = f"{event.testbed}: {event.method}"
        self._draw(event.total)

    @hookimpl
    def cell_finished(self, event: CellEvent) -> None:
        """Leave one line for the cell that has ended."""
        seconds = (event.record or {}).get("total_seconds")
        spent = f"{seconds:8.2f} s" if seconds is not None else " " * 10
        color = {"done": "green", "failed": "red", "skipped": "yellow"}[event.status]
        status = (f"{event.status:<7}", color)
        what = line(f"{event.testbed}: {event.method} (seed {event.seed})")
        self._ended += 1
        self._running.pop(event.key, None)
        self._console.print(Text.assemble(f"  {self._ended:>3}/{event.total} ", status, f" {spent}  {what}"))
        if self._cells is not None:
            self._draw(event.total)

    def _draw(self, total: int) -> None:
        """Show how many cells have ended, and which are running: several, where there are several workers."""
        if self._cells is None:
            self._cells = self._bars.add_task("", total=total)
        words = line(", ".join(self._running.values()))
        self._bars.update(self._cells, total=total, completed=self._ended, description=words)


@contextmanager
def progress_unless(quiet: bool) -> Iterator[TerminalProgress | None]:
    """Show progress inside, or nothing."""
    if quiet:
        yield None
    else:
        with TerminalProgress() as progress:
            yield progress


@contextmanager
def _lines(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    begin = last = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= QUIET_SECONDS:
            last = now
            left = f", about {(now - begin) / done * (total - done):.0f} s left" if total and done else ""
            of = f"/{total}" if total else ""
            echo(f"    {description}: {done}{of}{left}", err=True)

    yield advance
