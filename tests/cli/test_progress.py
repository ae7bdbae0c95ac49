"""What is drawn on a terminal while work goes on."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console
from rich.progress import Progress

from unmemorize.cli.progress import TerminalProgress
from unmemorize.registry.hookspecs import CellEvent


def live() -> TerminalProgress:
    progress = TerminalProgress()
    progress._console = Console(file=io.StringIO(), force_terminal=True)
    progress._bars = Progress(console=progress._console)
    progress._live = True
    return progress


def event(index: int, status: str = "started") -> CellEvent:
    return CellEvent("k", "s", "noise", f"m{index}", 0, index, 3, status, {"total_seconds": 1.5})


def test_work_outside_a_run_has_one_bar() -> None:
    progress = live()
    with progress.task("reading", 10) as advance:
        advance(4)
        assert [(task.description, task.completed) for task in progress._bars.tasks] == [("  reading", 4)]
    assert progress._bars.tasks == []


def test_a_run_has_a_bar_for_its_cells_above() -> None:
    progress = live()
    progress.cell_started(event(0))
    with progress.task("training", 5):
        assert [task.description for task in progress._bars.tasks] == ["noise: m0", "  training"]
    progress.cell_finished(event(0, "done"))
    progress.cell_started(event(1))
    (cells,) = progress._bars.tasks
    assert (cells.description, cells.completed, cells.total) == ("noise: m1", 1, 3)
    assert "1/3" in progress._console.file.getvalue()


def test_several_workers_share_the_line_of_cells() -> None:
    progress = live()
    first, second = (dataclasses.replace(event(number), key=str(number)) for number in (0, 1))
    progress.cell_started(first)
    progress.cell_started(second)
    (cells,) = progress._bars.tasks
    assert (cells.description, cells.completed) == ("noise: m0, noise: m1", 0)
    progress.cell_finished(dataclasses.replace(second, status="done"))
    (cells,) = progress._bars.tasks
    assert (cells.description, cells.completed) == ("noise: m0", 1)
