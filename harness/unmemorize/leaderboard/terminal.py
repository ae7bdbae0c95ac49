"""A board for the terminal: as wide as the window allows, and plain text where it is piped."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from unmemorize.leaderboard.board import Board, Table
from unmemorize.leaderboard.captions import caption, legend, set_aside_lines, third_parties, unfinished_lines
from unmemorize.leaderboard.columns import Column, columns, flag_codes, with_flag_codes, without_interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

PIPED_WIDTH: Final = 120
_GAP: Final = 2
_NEED_CODES: Final = {
    "forget": "F",
    "retain": "R",
    "clean": "C",
    "extra": "X",
    "training_data": "T",
    "nothing": "–",
}
_NEEDS_KEY: Final = "needs: F forget, R retain, C clean, X extra, T training data."


def to_text(board: Board, *, width: int = PIPED_WIDTH, color: bool = False) -> str:
    """Return the board as text.

    Args:
        board: what to show.
        width: columns of the window; columns are shortened, then left out, until a table fits.
        color: whether the text may hold control codes for color.
    """
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        for table in board.tables:
            _show(console, table, board.home, width)
        for line in set_aside_lines(board):
            console.print(line, style="yellow")
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _show(console: Console, table: Table, home: str, width: int) -> None:
    console.print()
    console.print(table.title, style="bold")
    shown = fitted(columns(table, home), width) if table.rows.height else []
    if shown:
        console.print(_grid(shown, table))
        console.print()
    for sentence in [*caption(table), *_keys(shown, table, home)]:
        console.print(sentence, style="dim")
    lines = unfinished_lines(table)
    if lines:
        console.print()
    for line in lines:
        console.print(line, style="red" if line.startswith("failed") else "yellow")


def _grid(shown: list[Column], table: Table) -> Grid:
    from rich import box
    from rich.table import Table as Grid

    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for column in shown:
        grid.add_column("\n".join(column.header), justify="right" if column.right else "left", vertical="bottom")
    for number, row in enumerate(table.rows.select("method", "frontier").iter_rows()):
        style = "dim" if row[0] == "base" else "green" if row[1] else ""
        grid.add_row(*[column.cells[number] for column in shown], style=style)
    return grid


def fitted(shown: list[Column], width: int) -> list[Column]:
    """Shorten columns, then leave out the least telling ones, until the table fits into `width`."""
    for step in _STEPS:
        if _width(shown) <= width:
            return shown
        shown = step(shown)
    return shown


def _width(shown: list[Column]) -> int:
    return sum(max(len(text) for text in (*column.header, *column.cells)) + _GAP for column in shown) - _GAP


def _change(name: str, change: Callable[[Column], Column]) -> Callable[[list[Column]], list[Column]]:
    return lambda shown: [change(column) if column.name == name else column for column in shown]


def _without(name: str) -> Callable[[list[Column]], list[Column]]:
    return lambda shown: [column for column in shown if column.name != name]


def _needs_as_codes(column: Column) -> Column:
    cells = (" ".join(_NEED_CODES.get(need, need) for need in cell.split(", ")) for cell in column.cells)
    return replace(column, cells=tuple(cells), coded=True)


def _shorter_header(column: Column) -> Column:
    return replace(column, header=(column.header[0].replace("memorized", "mem."), column.header[1]))


_STEPS: Final[tuple[Callable[[list[Column]], list[Column]], ...]] = (
    _change("flags", with_flag_codes),
    _change("needs", _needs_as_codes),
    _change("memorized_before", _shorter_header),
    _change("score", without_interval),
    _without("origin"),
    _without("config"),
    _without("utility_before"),
    _without("seeds"),
    _without("edited"),
    _without("perplexity"),
    _without("configs"),
    _without("memory"),
    _without("memorized_before"),
    _without("stage"),
    _without("unseen"),
    _change("memorized_after", without_interval),
    _without("needs"),
    _without("frontier"),
    _change("memorized_after", _shorter_header),
    _without("seconds"),
)


def _keys(shown: list[Column], table: Table, home: str) -> list[str]:
    """Return what the codes in the table stand for, and the origins for which there was no room."""
    coded = {column.name: column for column in shown if column.coded}
    lines = [_NEEDS_KEY] if "needs" in coded else []
    if not any(column.name == "origin" for column in shown):
        lines += third_parties(table, home)
    codes = flag_codes(coded["flags"]) if "flags" in coded else {}
    return lines + [f"{codes.get(flag, '')} {flag}: {rule}.".lstrip() for flag, rule in legend(table)]
