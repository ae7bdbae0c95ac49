"""How commands print: tables that fit the terminal, whole lines where there is none, and JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unmemorize.cli.echo import echo
from unmemorize.cli.streams import window_width
from unmemorize.untrusted import json_text, plain

if TYPE_CHECKING:
    from unmemorize.leaderboard.board import Board

WIDE = 160
"""Width of tables that are piped or written to a file."""
_CELL = 2_000
"""Characters that are shown of one cell."""


def console() -> Console:
    """Return a console for standard output."""
    return Console(highlight=False, width=window_width(WIDE) if sys.stdout.isatty() else WIDE)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of plain text; a column in which every cell is empty is left out."""
    listed = [list(row) for row in rows]
    kept = [number for number in range(len(columns)) if any(row[number] for row in listed)]
    table = Table(box=None, pad_edge=False)
    for number in kept:
        table.add_column(columns[number], overflow="fold", no_wrap=number == 0)
    for row in listed:
        table.add_row(*(Text(plain(row[number], _CELL)) for number in kept))
    echo(title, bold=True)
    drawn = console()
    with drawn.capture() as capture:
        drawn.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


_output: ContextVar[TextIO | None] = ContextVar("_output", default=None)


@contextmanager
def only_json() -> Iterator[None]:
    """Send to standard error what anybody prints inside, child processes included; only `print_json` goes out."""
    with ExitStack() as stack:
        out = sys.stdout
        if out is sys.__stdout__:
            out = stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace"))
            os.dup2(2, 1)
            stack.callback(lambda: os.dup2(out.fileno(), 1))
        token = _output.set(out)
        stack.callback(lambda: _output.reset(token))
        stack.callback(sys.stderr.flush)
        stack.enter_context(redirect_stdout(sys.stderr))
        yield


def print_json(value: object) -> None:
    """Print JSON for other programs."""
    click.echo(json_text(value, indent=2), file=_output.get())


def print_board(board: Board) -> None:
    """Print a board for the window there is; piped output has a fixed width and no control codes."""
    from unmemorize.leaderboard.terminal import PIPED_WIDTH, to_text

    window = sys.stdout.isatty()
    width = window_width(PIPED_WIDTH) if window else PIPED_WIDTH
    click.echo(to_text(board, width=width, color=window and not os.environ.get("NO_COLOR")))


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `42 s`, `3 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
