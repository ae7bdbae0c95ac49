"""Chunks: the base first and alone, then pieces about as long as each other that keep a method's cells together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from unmemorize.execution.chunks import Schedule
from unmemorize.execution.plan import Cell, plan
from unmemorize.execution.recording import record_of
from unmemorize.registry.manager import Registry
from unmemorize.results.record import BASE
from unmemorize.suite.load import load_suite

Planned = Callable[..., list[Cell]]


@pytest.fixture
def planned(toys: Registry) -> Planned:
    def cells(*, seeds: int = 1, **points: int) -> list[Cell]:
        ratios = {name: [(number + 1) / 100 for number in range(count)] for name, count in points.items()}
        suite = {
            "name": "chunks",
            "description": "d",
            "seeds": list(range(seeds)),
            "testbed": {"toy": {"provider": "toy"}},
            "metric": {"extraction": {}, "accuracy": {}},
            "method": {name: {"ratio": values} for name, values in ratios.items()},
        }
        return list(plan(load_suite(suite, toys), toys))

    return cells


def drawn(cells: list[Cell], workers: int, seconds: Mapping[str, float] | None = None) -> list[list[str]]:
    """The methods of every chunk, where each chunk ends before the next one is asked for."""
    schedule, chunks = Schedule(cells, {}, workers, seconds or {}), []
    group = None
    while chunk := schedule.next(group):
        group = chunk.cells[0].group
        chunks.append([cell.method for cell in chunk.cells])
        if chunk.base is None:
            schedule.base_ended(group, record_of(chunk.cells[0], "skipped", {}, reason="stands for any"))
    return chunks


def test_one_worker_takes_a_testbed_after_the_other(planned: Planned) -> None:
    rest = ["durable"] * 2 + ["activations"] * 2
    assert drawn(planned(durable=2, activations=2, seeds=2), 1) == [[BASE], rest, [BASE], rest]


@pytest.mark.parametrize(
    ("workers", "points", "seconds", "sizes"),
    [
        (2, {"durable": 40}, {}, [6, 6, 6, 6, 6, 6, 4]),
        (2, {"durable": 3, "activations": 3, "random_weights": 3}, {}, [1] * 9),  # 10 cells in 6 chunks: none fits
        (1, {"durable": 40}, {}, [40]),
        (2, {"durable": 6, "activations": 6}, {"durable": 1.0, "activations": 9.0}, [6, 1, 1, 1, 1, 1, 1]),
        (2, {"durable": 4, "activations": 2}, {"durable": 0.0, "activations": 0.0}, [6]),
    ],
)
def test_cells_are_cut_by_their_usual_seconds(
    planned: Planned, workers: int, points: dict[str, int], seconds: dict[str, float], sizes: list[int]
) -> None:
    base, *chunks = drawn(planned(**points), workers, seconds)
    assert (base, [len(chunk) for chunk in chunks]) == ([BASE], sizes)


def test_a_group_waits_for_its_base_and_others_do_not(planned: Planned) -> None:
    cells = planned(durable=2, seeds=2)
    schedule = Schedule(cells, {}, 2, {})
    first, second = schedule.next(), schedule.next()
    assert first is not None
    assert second is not None
    assert [chunk.cells[0].seed for chunk in (first, second)] == [0, 1]
    assert schedule.next() is None
    schedule.base_ended(second.cells[0].group, record_of(second.cells[0], "skipped", {}, reason="stands for any"))
    ready = schedule.next()
    assert ready is not None
    assert (ready.cells[0].seed, ready.base) == (1, ready.base)
    assert [cell.method for cell in schedule.give_up(first.cells[0].group)] == ["durable", "durable"]


def test_what_died_comes_last_and_alone(planned: Planned) -> None:
    cells = planned(durable=3)
    base = record_of(cells[0], "skipped", {}, reason="stands for any")
    schedule = Schedule(cells[1:], {cells[0].group: base}, 1, {})
    schedule.again(cells[0])
    drawn_chunks: list[Any] = []
    while chunk := schedule.next():
        drawn_chunks.append([cell.key for cell in chunk.cells])
    assert drawn_chunks == [[cell.key for cell in cells[1:]], [cells[0].key]]
