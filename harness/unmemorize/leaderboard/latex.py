"""A board as LaTeX tables, for papers; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unmemorize.leaderboard.board import Board, Table
from unmemorize.leaderboard.captions import caption, legend, third_parties, unfinished_lines
from unmemorize.leaderboard.columns import (
    FRONTIER,
    Column,
    columns,
    flag_codes,
    with_flag_codes,
    without_interval,
)
from unmemorize.untrusted import latex

_LEFT_OUT: Final = frozenset({"frontier", "flags", "config", "configs", "origin", "seeds", "utility_before", "edited"})
"""What stands elsewhere: beside the method's name, in the caption, in the base row, or in the CSV."""


def to_latex(board: Board) -> str:
    """Return the board as one `table*` per testbed."""
    head = "% needs \\usepackage{booktabs} and \\usepackage{amssymb}\n"
    return head + "\n".join(_table(table, board.home) for table in board.tables)


def _table(table: Table, home: str) -> str:
    shown = columns(table, home) if table.rows.height else []
    codes = {flag: code for column in shown if column.name == "flags" for flag, code in flag_codes(column).items()}
    flags = [f"({codes[flag]}) {flag}: {rule}." for flag, rule in legend(table)]
    below = [f"{line}." for line in unfinished_lines(table)]
    sentences = [f"{table.title}.", *caption(table), *third_parties(table, home), *flags, *below]
    text = " ".join(latex(sentence) for sentence in sentences)
    grid = _grid(shown, table) if shown else []
    lines = [r"\begin{table*}", r"\centering\small", *grid, rf"\caption{{{text}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _grid(shown: list[Column], table: Table) -> list[str]:
    kept = [column for column in shown if column.name not in _LEFT_OUT]
    cells = [_marked(shown, table) if column.name == "method" else _cells(column) for column in kept]
    first, second = ([latex(column.header[line]) for column in kept] for line in (0, 1))
    align = "".join("r" if column.right else "l" for column in kept)
    body = [_row(row) for row in zip(*cells, strict=True)]
    return [
        rf"\begin{{tabular}}{{{align}}}", r"\toprule", _row(first), _row(second),
        r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def _cells(column: Column) -> list[str]:
    plain = without_interval(column) if column.name == "score" else column
    return [latex(cell) for cell in plain.cells]


def _marked(shown: list[Column], table: Table) -> list[str]:
    """Return the methods with the frontier mark and the letters of their flags."""
    flags = [with_flag_codes(column).cells for column in shown if column.name == "flags"]
    letters = flags[0] if flags else [""] * table.rows.height
    marked = []
    for method, frontier, codes in zip(table.rows["method"], table.rows["frontier"], letters, strict=True):
        mark = f"$^{{{codes.replace(' ', ',')}}}$" if codes else ""
        marked.append(f"{latex(method)}{mark}{' ' + latex(FRONTIER) if frontier else ''}")
    return marked


def _row(cells: Sequence[str]) -> str:
    # A row that starts with a bracket would be read as an option of the line break before it.
    return " & ".join(f"{{{cell}}}" if cell.startswith("[") else cell for cell in cells) + r" \\"
