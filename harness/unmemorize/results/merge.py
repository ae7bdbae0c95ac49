"""Several results folders as one: the latest record of each cell, duplicates and disagreements reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import polars as pl

from unmemorize.results.schema import empty

TOLERANCE: Final = 1e-6
"""Numbers of one cell that differ by less, relative to the larger, count as the same."""


class Merged(NamedTuple):
    """One frame out of several."""

    frame: pl.DataFrame
    """One row per key, in the schema of records."""
    duplicates: pl.DataFrame
    """Cells that more than one frame holds: key, suite, testbed, method, seed, copies."""
    disagreements: pl.DataFrame
    """Numbers that differ although the key is the same: key, suite, testbed, method, seed, metric, set, part,
    moment (`before` or `after`), and the lowest and the highest value measured."""


def latest(frame: pl.DataFrame) -> pl.DataFrame:
    """Return one row per key, in order: its last `done` record, otherwise its last record."""
    rows = (
        frame.select("key", done=pl.col("status") == "done")
        .with_row_index("row")
        .sort("done", "row")
        .unique("key", keep="last", maintain_order=True)
        .sort("row")["row"]
    )
    return frame[rows]


def merge(frames: Iterable[pl.DataFrame]) -> Merged:
    """Join frames of records into one; where several hold a cell, the one that finished last is kept."""
    each = [latest(frame).with_columns(source=pl.lit(number)) for number, frame in enumerate(frames)]
    if not each:
        return Merged(empty(), _duplicates(_no_rows()), _disagreements(_no_rows()))
    rows = pl.concat(each).sort("finished_at", maintain_order=True)
    repeated = rows.filter(pl.col("source").n_unique().over("key") > 1)
    return Merged(latest(rows.drop("source")), _duplicates(repeated), _disagreements(repeated))


def _no_rows() -> pl.DataFrame:
    return empty().with_columns(source=pl.lit(0))


_CELL: Final = ("key", "suite", "testbed", "method", "seed")


def _duplicates(repeated: pl.DataFrame) -> pl.DataFrame:
    return repeated.group_by(_CELL, maintain_order=True).agg(copies=pl.len())


def _disagreements(repeated: pl.DataFrame) -> pl.DataFrame:
    measured = (
        repeated.filter(pl.col("status") == "done")
        .select(*_CELL, "values")
        .explode("values")
        .unnest("values")
        .filter(pl.col("kind") != "cost")
    )
    numbers = measured.unpivot(
        on=["before", "after"],
        index=[*_CELL, "metric", "set", "part"],
        variable_name="moment",
        value_name="value",
    )
    span = numbers.group_by(*_CELL, "metric", "set", "part", "moment", maintain_order=True).agg(
        lowest=pl.col("value").min(), highest=pl.col("value").max()
    )
    size = pl.max_horizontal(pl.col("lowest").abs(), pl.col("highest").abs())
    return span.filter(pl.col("highest") - pl.col("lowest") > TOLERANCE * size)
