"""A board as Markdown, for pages and pull requests."""

from __future__ import annotations

from collections.abc import Sequence

from unmemorize.leaderboard.board import Board, Table
from unmemorize.leaderboard.captions import caption, legend, set_aside_lines, unfinished_lines
from unmemorize.leaderboard.columns import columns
from unmemorize.untrusted import TEXT, markdown


def to_markdown(board: Board) -> str:
    """Return the board as GitHub-flavoured Markdown."""
    sections = [_section(table, board.home) for table in board.tables]
    lines = [markdown(line) for line in set_aside_lines(board)]
    if lines:
        sections.append("\n- ".join([f"{lines[0]}\n", *lines[1:]]) + "\n")
    return "\n".join(sections)


def _section(table: Table, home: str) -> str:
    lines = [f"## {markdown(table.title)}", ""]
    if table.rows.height:
        lines += [*_grid(table, home), ""]
    lines += [markdown(" ".join(caption(table)), TEXT), ""]
    entries = [f"**{markdown(flag)}**: {markdown(rule)}." for flag, rule in legend(table)]
    entries += [markdown(line) for line in unfinished_lines(table)]
    return "\n".join(lines + [f"- {entry}" for entry in entries]) + "\n"


def _grid(table: Table, home: str) -> list[str]:
    shown = columns(table, home)
    headers = [markdown(" ".join(column.header).strip()) for column in shown]
    rules = ["---:" if column.right else "---" for column in shown]
    rows = zip(*[[markdown(cell) for cell in column.cells] for column in shown], strict=True)
    return [_line(row) for row in (headers, rules, *rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
