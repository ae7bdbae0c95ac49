"""Divide the cells of a run into chunks, and say which chunk comes next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean
from typing import NamedTuple

from unmemorize.execution.plan import Cell
from unmemorize.results.record import BASE, Record

CHUNKS_PER_WORKER = 3
"""Few enough that a testbed is seldom loaded twice, and enough that no worker waits long for the last one."""


class Chunk(NamedTuple):
    """Cells of one testbed and seed that run one after the other in one process."""

    cells: tuple[Cell, ...]
    base: Record | None
    """The record of their base cell; None where it is the base cell that is to run."""


@dataclass
class _Group:
    """The cells of one testbed and seed that have not been handed out."""

    base: Record | None
    waiting: list[Cell]
    again: list[Cell] = field(default_factory=list)
    """Those in which a process died: they come last."""


class Schedule:
    """Hands out the cells of a run, chunk by chunk.

    The base of a testbed comes first and alone, so that a testbed that must be trained is trained once. Then a
    method's cells stay together where they fit into a chunk, since they share attributions.

    Args:
        waiting: the cells to run.
        bases: the records of the bases that need not run, by group.
        workers: how many chunks run at once.
        seconds: the usual seconds of each method, as far as they are known.
    """

    def __init__(
        self, waiting: Sequence[Cell], bases: Mapping[str, Record], workers: int, seconds: Mapping[str, float]
    ) -> None:
        self._seconds, self._usual = seconds, fmean(seconds.values() or [1.0])
        total = sum(map(self._cost, waiting))
        self._most = math.inf if workers == 1 else total / (CHUNKS_PER_WORKER * workers)
        self._groups: dict[str, _Group] = {}
        for cell in waiting:
            self._groups.setdefault(cell.group, _Group(bases.get(cell.group), [])).waiting.append(cell)
        self._blocked: set[str] = set()
        """Groups whose base is running."""

    def next(self, group: str | None = None) -> Chunk | None:
        """Return the next chunk, of the given group where that has one; None while there is none to run.

        Args:
            group: the group whose testbed the free worker has loaded.
        """
        names = sorted(self._groups, key=lambda name: name != group)
        for last in (False, True):
            for name in names:
                chunk = self._chunk(name, last=last)
                if chunk is not None:
                    return chunk
        return None

    def base_ended(self, group: str, record: Record) -> None:
        """Take the record of a base cell, for which the rest of its group has waited."""
        self._blocked.discard(group)
        self._groups[group].base = record

    def has_base(self, group: str) -> bool:
        """Return whether the base of a group is recorded."""
        return self._groups[group].base is not None

    def measure_again(self, cells: Sequence[Cell]) -> None:
        """Run cells of earlier runs before all others of their group: its base, and what was compared with that."""
        group = self._groups[cells[0].group]
        group.base, group.waiting = None, [*cells, *group.waiting]

    def again(self, cell: Cell) -> None:
        """Put a cell at the end of the run."""
        self._groups[cell.group].again.append(cell)
        if cell.method == BASE:
            self._blocked.discard(cell.group)

    def give_up(self, group: str) -> list[Cell]:
        """Take all cells of a group out, and return them."""
        given = self._groups[group]
        cells, given.waiting, given.again = [*given.waiting, *given.again], [], []
        self._blocked.discard(group)
        return cells

    def _chunk(self, name: str, *, last: bool) -> Chunk | None:
        group = self._groups[name]
        cells = group.again if last else group.waiting
        if not cells or name in self._blocked:
            return None
        if cells[0].method == BASE:
            self._blocked.add(name)
            return Chunk((cells.pop(0),), None)
        if group.base is None:  # it comes last, and the others after it
            return None
        taken = [cells[0]] if last else next(self._cut(cells))
        del cells[: len(taken)]
        return Chunk(tuple(taken), group.base)

    def _cut(self, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
        """Yield runs of cells, each about as long as a chunk."""
        chunk: list[Cell] = []
        for piece in self._pieces(cells):
            if chunk and self._total([*chunk, *piece]) > self._most * 1.001:  # sums of equal parts are not exact
                yield chunk
                chunk = []
            chunk.extend(piece)
        yield chunk

    def _pieces(self, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
        """Yield what is not cut: the cells of a method that fit into a chunk together, or else single cells."""
        for _, members in groupby(cells, key=lambda cell: cell.method):
            method = list(members)
            yield from [method] if self._total(method) <= self._most else ([cell] for cell in method)

    def _total(self, cells: Sequence[Cell]) -> float:
        return sum(map(self._cost, cells))

    def _cost(self, cell: Cell) -> float:
        return self._seconds.get(cell.method, self._usual)
