"""Measured runs to rows: the mean over seeds of each configuration, and the choice of one for each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from unmemorize.leaderboard.flags import value_rules, with_flags
from unmemorize.leaderboard.runs import done_runs, long_values, measured
from unmemorize.leaderboard.score import half_width, whole_mean
from unmemorize.results.record import BASE, Value
from unmemorize.results.schema import SCHEMA

_INTERVALS: Final = {
    "score": ("score_low", "score_high"),
    "memorized_after": ("memorized_low", "memorized_high"),
    "utility_after": ("utility_low", "utility_high"),
    "unseen_after": ("unseen_low", "unseen_high"),
}
"""Means that carry an interval, and where its ends stand."""

_BOUNDS: Final = {
    "score": (-1.0, None),
    "memorized_after": (0.0, 100.0),
    "utility_after": (0.0, None),
    "unseen_after": (0.0, 100.0),
}
"""What a mean can reach; Student's t knows nothing of it."""

_MEANS: Final = (
    "memorized_before",
    "utility_before",
    "unseen_before",
    "perplexity_before",
    "perplexity_after",
)

_SAME: Final = (
    *(
        "table",
        "row",
        "suite",
        "testbed",
        "provider",
        "provider_config",
        "fingerprint",
        "memorization",
        "utility",
    ),
    *(
        "method",
        "distribution",
        "method_config",
        "stage",
        "needs",
        "memorized_direction",
        "utility_direction",
    ),
)
"""Columns that do not differ between the seeds of a configuration."""


def chosen_rows(records: pl.DataFrame, *, all_configs: bool = False) -> pl.DataFrame:
    """Return one aggregated row per method and table (or per configuration), with `flags` and `rule`.

    Where any method of a table has more than one configuration, each method's best by the score on the half
    `select` is chosen, and every row of that table, the base too, reports the half `report`: `rule` is then
    `halves`, otherwise `single`. With `all_configs` nothing is chosen (`rule` is `every`).
    """
    runs = done_runs(records, by_version=all_configs)
    values, runs = long_values(runs), runs.drop("values")
    configs = runs.group_by("table", "row").agg(configs=pl.col("config").n_unique())
    several = configs.group_by("table").agg(grid=(pl.col("configs") > 1).any() & (not all_configs))
    runs = runs.join(configs.drop("table"), on="row", how="left").join(several, on="table", how="left")
    halves, whole = runs.filter("grid"), runs.filter(~pl.col("grid"))
    best = _best(aggregated(measured(halves, values, "select")))
    winners = halves.join(best, on="config", how="semi")
    reported = aggregated(measured(winners, values, "report")).with_columns(rule=pl.lit("halves"))
    shown = aggregated(measured(whole, values, "all"))
    shown = shown.with_columns(rule=pl.lit("every" if all_configs else "single"))
    return with_flags(pl.concat([reported, shown])).with_columns(_unless_base("score_low"), _unless_base("score_high"))


def value_flags(method: str, values: Sequence[Value], memorization: str, utility: str) -> list[str]:
    """Return the flags that the values of one method decide, whatever else a board shows.

    Args:
        method: its name.
        values: every metric before and after.
        memorization: label of the headline memorization metric.
        utility: label of the headline utility metric.
    """
    columns = {"run": 0, "method": method, "memorization": memorization, "utility": utility}
    listed = [[value.model_dump() for value in values]]
    runs = pl.DataFrame(columns).with_columns(values=pl.Series(listed, dtype=SCHEMA["values"]))
    row = measured(runs.drop("values"), long_values(runs), "all").with_columns(rule=pl.lit("single"), versions=1)
    return [name for name, rule in value_rules().items() if row.select(rule.fill_null(value=False)).item()]


def _unless_base(column: str) -> pl.Expr:
    """Drop what the base cannot have: its score is 0 by definition, not by measurement."""
    return pl.when(pl.col("method") != BASE).then(pl.col(column)).alias(column)


def aggregated(runs: pl.DataFrame) -> pl.DataFrame:
    """Return one row per configuration: means over its seeds.

    Intervals are over seeds (Student's t) where there are at least two, otherwise those of the one run.
    """
    ends = [end for pair in _INTERVALS.values() for end in pair]
    one_seed = [pl.col(end).first() for end in ends]
    half = [half_width(mean).alias(f"{mean}_half") for mean in _INTERVALS]
    means = [whole_mean(mean) for mean in (*_MEANS, *_INTERVALS)]
    rows = runs.group_by("config", maintain_order=True).agg(
        *[pl.col(name).first() for name in (*_SAME, "configs")],
        *means,
        *half,
        *one_seed,
        pl.col("flags").explode().drop_nulls().unique(),
        pl.col("halved").fill_null(value=False).all(),
        pl.col("returned").max(),
        seeds=pl.len(),
        versions=pl.col("version").n_unique(),
        version=pl.col("version").unique().sort().str.join(", "),
        seconds=pl.col("total_seconds").mean(),
        peak_memory=pl.col("peak_memory").max(),
        edited_share=(pl.col("edited") / pl.col("parameters")).mean(),
    )
    return rows.with_columns(_ends()).drop([f"{mean}_half" for mean in _INTERVALS])


def _ends() -> list[pl.Expr]:
    several = pl.col("seeds") > 1
    ends = []
    for mean, (low, high) in _INTERVALS.items():
        least, most = _BOUNDS.get(mean, (None, None))
        below = (pl.col(mean) - pl.col(f"{mean}_half")).clip(lower_bound=least)
        above = (pl.col(mean) + pl.col(f"{mean}_half")).clip(upper_bound=most)
        ends.append(pl.when(several).then(below).otherwise(pl.col(low)).alias(low))
        ends.append(pl.when(several).then(above).otherwise(pl.col(high)).alias(high))
    return ends


def _best(configs: pl.DataFrame) -> pl.DataFrame:
    """Return the configuration with the smallest score for each row of the board; ties go to the cheaper."""
    order = ["score", "seconds", "method_config"]
    best = configs.sort(order, nulls_last=True).unique("row", keep="first", maintain_order=True)
    return best.select("config")
