"""The score of a configuration and the intervals of means over seeds, as polars expressions."""

from __future__ import annotations

from typing import Final

import polars as pl

_NORMAL: Final = 1.959963984540054

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom (NIST handbook 1.3.6.7.2).
_STUDENT: Final = (
    12.706204736, 4.302652730, 3.182446305, 2.776445105, 2.570581836, 2.446911851, 2.364624252, 2.306004135,
    2.262157163, 2.228138852, 2.200985160, 2.178812830, 2.160368656, 2.144786688, 2.131449546, 2.119905299,
    2.109815578, 2.100922040, 2.093024054, 2.085963447, 2.079613845, 2.073873068, 2.068657610, 2.063898562,
    2.059538553, 2.055529439, 2.051830516, 2.048407142, 2.045229642, 2.042272456,
)  # fmt: skip


def student(freedom: pl.Expr) -> pl.Expr:
    """Return the two-sided 95 % quantile of Student's t; null for no degrees of freedom.

    Beyond 30 degrees: the Cornish-Fisher expansion, right to four decimals.
    """
    z, nu = _NORMAL, freedom.cast(pl.Float64)
    expansion = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    table = dict(enumerate(_STUDENT, start=1))
    listed = freedom.cast(pl.Int64).replace_strict(table, default=None, return_dtype=pl.Float64)
    return pl.when(freedom > len(_STUDENT)).then(expansion).otherwise(listed)


def half_width(column: str) -> pl.Expr:
    """Return, in a group of seeds, half the 95 % interval of the mean of `column`; null for one seed."""
    count = pl.col(column).count()
    return student(count - 1) * pl.col(column).std() / count.cast(pl.Float64).sqrt()


def whole_mean(column: str) -> pl.Expr:
    """Return the mean of `column` in a group, null if one value is: a lost number is not a good one."""
    return pl.when(pl.col(column).null_count() == 0).then(pl.col(column).mean())


def worsening(before: str, after: str, direction: str) -> pl.Expr:
    """Return the relative change from `before` to `after`, positive where it is for the worse.

    Null where `before` is not above zero: there is nothing that the change could be relative to.
    """
    change = (pl.col(after) - pl.col(before)) / pl.col(before)
    signed = pl.when(pl.col(direction) == "higher").then(-change).otherwise(change)
    return pl.when(pl.col(before) > 0).then(signed)


def with_score(runs: pl.DataFrame) -> pl.DataFrame:
    """Add `score`, `score_low` and `score_high` to measured runs.

    score = (memorized_after - memorized_before) / memorized_before + loss(utility),

    where the loss is the relative change of utility if it is for the worse, and 0 if utility improved: a gain
    in utility never pays for memorization that stays. -1 is perfect: nothing memorized, nothing lost. The
    interval comes from those of the two values after; `before` counts as known.
    """
    ends = [pl.coalesce(f"{role}_{end}", f"{role}_after").alias(f"_{role}_{end}") for role in _ROLES for end in _ENDS]
    removed = [worsening("memorized_before", f"_memorized_{end}", "memorized_direction") for end in _ENDS]
    lost = [worsening("utility_before", f"_utility_{end}", "utility_direction").clip(lower_bound=0) for end in _ENDS]
    score = removed[0] + lost[0]
    scored = runs.with_columns(ends).with_columns(
        score=score,
        score_low=pl.when(score.is_not_null()).then(pl.min_horizontal(removed) + pl.min_horizontal(lost)),
        score_high=pl.when(score.is_not_null()).then(pl.max_horizontal(removed) + pl.max_horizontal(lost)),
    )
    return scored.drop([f"_{role}_{end}" for role in _ROLES for end in _ENDS])


_ENDS: Final = ("after", "low", "high")
_ROLES: Final = ("memorized", "utility")
