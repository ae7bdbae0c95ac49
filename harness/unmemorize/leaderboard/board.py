"""A board: one ranked table per testbed, with what the reader must know to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from unmemorize.errors import StoreError
from unmemorize.leaderboard.failures import PLACE, unfinished
from unmemorize.leaderboard.ranking import ranked
from unmemorize.leaderboard.rows import chosen_rows
from unmemorize.leaderboard.variants import variants
from unmemorize.results.merge import latest
from unmemorize.results.record import BASE
from unmemorize.untrusted import NAME, SENTENCE, line, plain

HOME: Final = "unmemorize"
"""The distribution whose methods need no word about where they come from."""

COLUMNS: Final = (
    *("suite", "testbed", "variant", "rank", "method", "distribution", "version", "stage", "needs"),
    *("memorized_before", "memorized_after", "memorized_low", "memorized_high"),
    *("unseen_before", "unseen_after", "unseen_low", "unseen_high"),
    *("utility_before", "utility_after", "utility_low", "utility_high"),
    *("perplexity_before", "perplexity_after", "seconds", "peak_memory", "edited_share"),
    *("score", "score_low", "score_high", "frontier", "flags", "seeds", "configs", "rule"),
    *("memorization", "utility", "utility_direction", "method_config", "provider", "provider_config"),
)
"""The columns of the flat frame, in order: what CSV and parquet hold."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one testbed, comparable with each other."""

    suite: str
    testbed: str
    variant: str
    """What tells this table from others of the same name: settings of the testbed, or headline metrics."""
    memorization: str
    """Label of the headline memorization metric; empty where nothing is measured yet."""
    utility: str
    """Label of the headline utility metric."""
    rows: pl.DataFrame
    """The base, then the methods in order of rank; columns as in `COLUMNS`."""
    unfinished: pl.DataFrame
    """Failed and skipped cells: method, status, reason, count."""

    @property
    def title(self) -> str:
        """The table's name."""
        name = f"{self.suite} / {self.testbed}"
        return f"{name} ({self.variant})" if self.variant else name

    @property
    def rule(self) -> str:
        """How rows were chosen: `single`, `halves` or `every`."""
        return str(self.rows["rule"][0]) if self.rows.height else "single"

    @property
    def has_base(self) -> bool:
        """Whether the unmitigated model has been measured."""
        return BASE in self.rows["method"]


@dataclass(frozen=True, slots=True)
class Board:
    """Ranked tables, one per testbed."""

    tables: tuple[Table, ...]
    home: str = HOME
    """Methods of other distributions are shown with their distribution and version."""
    set_aside: tuple[str, ...] = ()
    """Damaged and impossible records, which no number here stands on: where each is, and what is wrong with it."""

    def frame(self) -> pl.DataFrame:
        """Return every row of every table in one flat frame with the columns `COLUMNS`."""
        return pl.concat([table.rows for table in self.tables])


def build_board(
    records: pl.DataFrame, *, all_configs: bool = False, home: str = HOME, set_aside: Sequence[str] = ()
) -> Board:
    """Build the board of a frame of records, finished or not.

    Args:
        records: as `Store.frame()` or `merge(...).frame` gives them; at any moment of a run.
        all_configs: show every configuration instead of each method's best.
        home: the distribution whose methods are shown without their origin.
        set_aside: the damaged and impossible records that were found beside them, in words, to be counted and named.

    Raises:
        StoreError: there are no records.
    """
    if records.is_empty():
        damaged = f": all {len(set_aside)} are damaged or impossible, e.g. {set_aside[0]}" if set_aside else ""
        raise StoreError(
            f"there are no records to make a board from{damaged}",
            expected="at least one record, as every run writes them to `records` in its results folder",
            fix="unmemorize run quick",
        )
    cells = latest(records)
    rows, missing = chosen_rows(cells, all_configs=all_configs), unfinished(cells)
    heads = _heads(rows, missing)
    tables, listed = [], set()
    for head, variant in zip(heads, variants(heads), strict=True):
        place = tuple(head[name] for name in PLACE)
        own = missing.clear() if place in listed else missing
        listed.add(place)
        tables.append(_table(head, variant, rows, own))
    return Board(tuple(tables), home, tuple(set_aside))


def _heads(rows: pl.DataFrame, missing: pl.DataFrame) -> list[dict[str, Any]]:
    """Return what identifies each table; one for each place, too, where nothing is measured yet."""
    labels = ["memorization", "utility"]
    measured = rows.select("table", *PLACE, *labels).unique("table").sort("suite", "testbed", "table")
    bare = missing.select(PLACE).unique(maintain_order=True).join(measured, on=list(PLACE), how="anti")
    nothing = bare.with_columns(pl.lit("").alias(label) for label in labels)
    return measured.to_dicts() + [{"table": None, **head} for head in nothing.to_dicts()]


def _table(head: dict[str, Any], variant: str, rows: pl.DataFrame, missing: pl.DataFrame) -> Table:
    own = rows.filter(pl.col("table") == head["table"]) if head["table"] is not None else rows.clear()
    here = pl.all_horizontal(pl.col(name) == head[name] for name in PLACE)
    return Table(
        suite=line(head["suite"], NAME),
        testbed=line(head["testbed"]),
        variant=line(variant),
        memorization=line(head["memorization"], NAME),
        utility=line(head["utility"], NAME),
        rows=_readable(ranked(own).with_columns(variant=pl.lit(variant)).select(COLUMNS)),
        unfinished=_readable(missing.filter(here).select("method", "status", "reason", "count")),
    )


_JSON: Final = ("method_config", "provider_config")
_LONG: Final = ("testbed", "variant", "reason")
_MOST: Final = 40
"""Flags and needs of one row that are shown."""


def _readable(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with every text on one line, of a length for tables, and with nothing in it that acts."""
    return rows.with_columns(_readable_column(column) for column in rows if column.dtype in (pl.String, _TEXTS))


_TEXTS: Final = pl.List(pl.String)


def _readable_column(column: pl.Series) -> pl.Series:
    if column.dtype == _TEXTS:
        listed = [None if texts is None else [line(text, NAME) for text in texts[:_MOST]] for texts in column.to_list()]
        return pl.Series(column.name, listed, dtype=_TEXTS)
    most = SENTENCE if column.name in _LONG else NAME
    shown = {
        text: text if text is None else plain(text) if column.name in _JSON else line(text, most)
        for text in column.unique()
    }
    return pl.Series(column.name, [shown[text] for text in column], dtype=pl.String)
