"""Ranks, shared by rows whose intervals overlap, and the frontier of undominated rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl

from unmemorize.results.record import BASE


class _Interval(NamedTuple):
    low: float
    high: float


def ranked(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of one table in order, base first, with `rank` and `frontier`.

    Methods stand in the order of their scores. A row shares the rank of the first row of the group above it
    if their score intervals overlap, otherwise it opens the next group, whose rank is its own position. The
    base and rows without a score have no rank; the latter stand last.
    """
    base = pl.col("method") == BASE
    order = [base, "score", "method", "distribution", "method_config"]
    ordered = rows.sort(order, descending=[True, *[False] * 4], nulls_last=True)
    return ordered.with_columns(
        rank=pl.Series(_ranks(ordered), dtype=pl.Int64),
        frontier=pl.Series(_frontier(ordered), dtype=pl.Boolean),
    )


def _ranks(rows: pl.DataFrame) -> list[int | None]:
    ranks: list[int | None] = []
    first, rank, position = _Interval(-math.inf, -math.inf), 0, 0
    for method, score, low, high in rows.select("method", "score", "score_low", "score_high").iter_rows():
        if method == BASE or score is None:
            ranks.append(None)
            continue
        position += 1
        interval = _Interval(score if low is None else low, score if high is None else high)
        if not (rank and interval.low <= first.high and first.low <= interval.high):
            first, rank = interval, position
        ranks.append(rank)
    return ranks


def _frontier(rows: pl.DataFrame) -> list[bool]:
    """Return which rows no row, the base included, dominates in memorization, utility and seconds."""
    better = pl.when(pl.col("utility_direction") == "higher").then(-pl.col("utility_after"))
    less = pl.when(pl.col("memorized_direction") == "higher").then(-pl.col("memorized_after"))
    points = rows.select(
        less.otherwise(pl.col("memorized_after")).fill_null(math.inf),
        better.otherwise(pl.col("utility_after")).fill_null(math.inf),
        pl.when(pl.col("method") == BASE).then(0.0).otherwise(pl.col("seconds")).fill_null(math.inf),
    ).rows()
    front: list[tuple[float, ...]] = []
    for point in sorted(set(points)):
        if not any(_dominates(other, point) for other in front):
            front.append(point)
    kept = set(front)
    scored = rows.select(pl.col("score").is_not_null() & (pl.col("method") != BASE)).to_series()
    return [point in kept and valid for point, valid in zip(points, scored, strict=True)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
