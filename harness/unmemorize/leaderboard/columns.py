"""Which columns a table shows and what stands in their cells, for every kind of output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from string import ascii_lowercase
from typing import Any, Final

from unmemorize.leaderboard import numbers
from unmemorize.leaderboard.board import Table

FRONTIER: Final = "◆"

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of text."""

    name: str
    header: tuple[str, str]
    """Two lines."""
    cells: tuple[str, ...]
    right: bool = True
    """Whether its cells are numbers, to be aligned on the right."""
    values: tuple[Any, ...] = ()
    """What the cells stand for, to sort by."""
    coded: bool = False
    """Whether its words have been replaced by codes, which need a key."""


def columns(table: Table, home: str) -> list[Column]:
    """Return the columns that have something to say about this table, in reading order."""
    rows = table.rows.to_dicts()
    shown = [_column(name, rows) for name in _SPECS if _matters(name, table, rows, home)]
    return [_named_after(column, table) for column in shown]


def _column(name: str, rows: list[_Row]) -> Column:
    header, cell, key = _SPECS[name]
    cells = tuple(cell(row) for row in rows)
    return Column(name, header, cells, name not in _LEFT, tuple(row[key] for row in rows))


def _matters(name: str, table: Table, rows: list[_Row], home: str) -> bool:
    rules: dict[str, Callable[[], bool]] = {
        "origin": lambda: any(row["distribution"] not in ("", home) for row in rows),
        "unseen": lambda: any(row["unseen_after"] is not None for row in rows),
        "perplexity": lambda: any(row["perplexity_after"] is not None for row in rows),
        "seeds": lambda: any(row["seeds"] > 1 for row in rows),
        "configs": lambda: table.rule == "halves",
        "config": lambda: table.rule == "halves",
        "settings": lambda: table.rule == "every",
        "flags": lambda: any(row["flags"] for row in rows),
    }
    return rules.get(name, lambda: True)()


def _named_after(column: Column, table: Table) -> Column:
    if column.name not in ("utility_before", "utility_after"):
        return column
    return replace(column, header=(table.utility.partition("@")[0], column.header[1]))


def flag_codes(column: Column) -> dict[str, str]:
    """Return a letter for each flag in a column of flags."""
    flags = sorted({flag for value in column.values for flag in value})
    letters = [*ascii_lowercase, *map("".join, product(ascii_lowercase, repeat=2))]
    return dict(zip(flags, letters, strict=False))


def with_flag_codes(column: Column) -> Column:
    """Return a column of flags with a letter for each."""
    codes = flag_codes(column)
    cells = tuple(" ".join(codes[flag] for flag in flags) for flags in column.values)
    return replace(column, cells=cells, coded=True)


def without_interval(column: Column) -> Column:
    """Return a column of numbers without their intervals."""
    return replace(column, cells=tuple(cell.partition(" [")[0] for cell in column.cells))


def needs(row: _Row) -> str:
    """Return the data that a row's method was shown."""
    return numbers.NONE if row["method"] == "base" else ", ".join(row["needs"]) or "nothing"


def origin(row: _Row) -> str:
    """Return the distribution and version that a row's method came from."""
    return f"{row['distribution']} {row['version']}".strip() or numbers.NONE


def _stage(row: _Row) -> str:
    return numbers.NONE if row["method"] == "base" else str(row["stage"])


def _seconds(row: _Row) -> str:
    return numbers.NONE if row["method"] == "base" else numbers.seconds(row["seconds"])


def _rank(row: _Row) -> str:
    return numbers.NONE if row["rank"] is None else str(row["rank"])


def _interval(name: str, digits: int = 1) -> Callable[[_Row], str]:
    value, low, high = (f"{name}_after", f"{name}_low", f"{name}_high")
    if name == "score":
        value = name
    return lambda row: numbers.with_interval(row[value], row[low], row[high], digits)


def _number(name: str, digits: int = 1) -> Callable[[_Row], str]:
    return lambda row: numbers.number(row[name], digits)


_LEFT: Final = frozenset({"frontier", "method", "origin", "stage", "needs", "config", "settings", "flags"})

_SPECS: Final[dict[str, tuple[tuple[str, str], Callable[[_Row], str], str]]] = {
    "rank": (("", "rank"), _rank, "rank"),
    "frontier": (("", ""), lambda row: FRONTIER if row["frontier"] else "", "frontier"),
    "method": (("", "method"), lambda row: str(row["method"]), "method"),
    "settings": (("", "configuration"), lambda row: numbers.config(row["method_config"]), "method_config"),
    "origin": (("", "from"), origin, "distribution"),
    "stage": (("", "stage"), _stage, "stage"),
    "needs": (("", "needs"), needs, "needs"),
    "memorized_before": (("memorized %", "before"), _number("memorized_before"), "memorized_before"),
    "memorized_after": (("memorized %", "after"), _interval("memorized"), "memorized_after"),
    "unseen": (("unseen %", "after"), _number("unseen_after"), "unseen_after"),
    "utility_before": (("utility", "before"), _number("utility_before"), "utility_before"),
    "utility_after": (("utility", "after"), _number("utility_after"), "utility_after"),
    "perplexity": (("perplexity", "after"), _number("perplexity_after", 2), "perplexity_after"),
    "seconds": (("", "seconds"), _seconds, "seconds"),
    "memory": (("peak", "GiB"), lambda row: numbers.gibibytes(row["peak_memory"]), "peak_memory"),
    "edited": (("edited", "%"), lambda row: numbers.percent(row["edited_share"]), "edited_share"),
    "seeds": (("", "seeds"), lambda row: str(row["seeds"]), "seeds"),
    "configs": (("", "configs"), lambda row: str(row["configs"]), "configs"),
    "score": (("", "score"), _interval("score", 3), "score"),
    "flags": (("", "flags"), lambda row: ", ".join(row["flags"]), "flags"),
    "config": (("", "configuration"), lambda row: numbers.config(row["method_config"]), "method_config"),
}
