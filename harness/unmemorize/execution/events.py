"""What is told about cells while they run."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from unmemorize.execution.plan import Cell
from unmemorize.results.record import Record

Row = tuple[str, str, int, float]
"""A value of a single sequence: metric, set, id, value."""


class Ended(NamedTuple):
    """A cell that has ended."""

    record: Record
    rows: list[Row] = []  # noqa: RUF012 - a named tuple is immutable, and nobody writes into this
    how: Literal["itself", "unloaded", "stale", "died", "died loading"] = "itself"
    """By itself; because its testbed could not be loaded, or is not that of its base; or with its process."""
    spoiled: bool = False
    """Whether what is left of the testbed or of the process is of no use to other cells."""


class Steps(NamedTuple):
    """How far some work inside a cell is."""

    work: int
    """Its number in this worker."""
    description: str
    total: int | None
    done: int
    ended: bool = False


class Listener(Protocol):
    """Hears of cells as they run."""

    def started(self, cell: Cell) -> None:
        """Hear that a cell comes next; its testbed may still have to be loaded."""

    def acting(self, cell: Cell) -> None:
        """Hear that the testbed is there, and that the time of the cell runs."""

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Hear that a cell has ended."""
