"""What the flags on a row mean: one rule each, and the expressions that follow the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from unmemorize.leaderboard.score import worsening
from unmemorize.results.record import BASE

COLLAPSED_AT: Final = 0.10
MEMORIZED_AT: Final = 20.0
RETURNS_AT: Final = 10.0

FLAGS: Final[Mapping[str, str]] = {
    "collapsed": "utility lost more than 10 % of what it was before",
    "worse": "more is memorized after the method than before it",
    "base-not-memorized": "less than 20 % was memorized before, so there was little to remove",
    "returns-under-attack": "under a robustness attack at least 10 points more are memorized than without it",
    "sees-more": "shown a kind of data that fewer than half of this table's methods of its stage were shown",
    "approximate-attribution": "the attribution is an estimate, not the method's definition",
    "layout-by-structure": "no layout fits the model's type: its MLPs were found by structure (note `layout`)",
    "tie-broken": "units of equal score stood at the threshold, and their position decided which were chosen",
    "no-halves": "chosen and reported on the same sequences, for want of values on halves of the set",
    "unequal-grid": "chosen among several configurations, but not as many as another chosen method had",
    "fewer-seeds": "stands on fewer seeds than other rows of this table",
    "mixed-versions": "its seeds were run with different versions of the method's distribution",
    "no-number": "a headline value is missing or not finite, so there is no score",
}
"""The rule of every flag that the board sets or knows; any other flag comes from the method that ran."""


def meaning(flag: str) -> str:
    """Return the rule of a flag."""
    return FLAGS.get(flag, "set by the method while it ran")


def with_flags(rows: pl.DataFrame) -> pl.DataFrame:
    """Replace `flags` (those that the records carry) by every flag of each row, sorted by name.

    Takes the rows of `aggregated` with their `rule`; the base row is never blamed for what a method does.
    """
    if rows.is_empty():  # older releases of polars cannot make lists of no rows
        return rows
    rules = {
        **value_rules(),
        **_company_rules(),
        "sees-more": pl.col("table_row").is_in(_seeing_more(rows).to_list()),
    }
    marks = [pl.when(rule).then(pl.lit(name)) for name, rule in rules.items()]
    own = pl.concat_list(marks).list.drop_nulls()
    together = pl.concat_list(own, pl.col("flags")).list.unique().list.sort()
    return rows.with_row_index("table_row").with_columns(flags=together).drop("table_row")


def value_rules() -> dict[str, pl.Expr]:
    """Return the rule of each flag that a row's own values decide."""
    method = pl.col("method") != BASE
    loss = worsening("utility_before", "utility_after", "utility_direction")
    gain = worsening("memorized_before", "memorized_after", "memorized_direction")
    return {
        "collapsed": method & (loss > COLLAPSED_AT),
        "worse": method & (gain > 0),
        "base-not-memorized": pl.col("memorized_before") < MEMORIZED_AT,
        "returns-under-attack": method & (pl.col("returned") >= RETURNS_AT),
        "no-number": pl.col("score").is_null(),
        "no-halves": method & (pl.col("rule") == "halves") & ~pl.col("halved"),
        "mixed-versions": pl.col("versions") > 1,
    }


def _company_rules() -> dict[str, pl.Expr]:
    several = (pl.col("configs") > 1) & (pl.col("rule") == "halves")
    grids = pl.col("configs").filter(several)
    return {
        "unequal-grid": several & (grids.n_unique().over("table") > 1),
        "fewer-seeds": pl.col("seeds") < pl.col("seeds").max().over("table"),
    }


def _seeing_more(rows: pl.DataFrame) -> pl.Series:
    """Return the numbers of the rows shown a kind of data that few of their stage were shown."""
    methods = rows.with_row_index("table_row").filter(pl.col("method") != BASE)
    stage = ["table", "stage"]
    shown = methods.select("table_row", *stage, "method", "needs").explode("needs").drop_nulls("needs")
    company = methods.group_by(stage).agg(methods=pl.col("method").n_unique())
    common = shown.group_by(*stage, "needs").agg(shown=pl.col("method").n_unique()).join(company, on=stage)
    rare = common.filter(2 * pl.col("shown") < pl.col("methods"))
    return shown.join(rare, on=[*stage, "needs"], how="semi")["table_row"].unique()
