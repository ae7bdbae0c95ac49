from __future__ import annotations

import math

import polars as pl
import pytest

from unmemorize.leaderboard.score import half_width, student, whole_mean, with_score, worsening

HEADLINE = {
    "memorized_before": 80.0, "memorized_after": 20.0, "memorized_low": None, "memorized_high": None,
    "memorized_direction": "lower",
    "utility_before": 90.0, "utility_after": 81.0, "utility_low": None, "utility_high": None,
    "utility_direction": "higher",
}  # fmt: skip


def score(**changes):
    row = HEADLINE | changes
    floats = {name: pl.Float64 for name in row if not name.endswith("direction")}
    (scored,) = with_score(pl.DataFrame([row], schema_overrides=floats)).to_dicts()
    return scored


def _density(t, nu):
    return math.exp(math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)) / math.sqrt(nu * math.pi) * (
        1 + t * t / nu
    ) ** (-(nu + 1) / 2)  # fmt: skip


def _inside(quantile, nu, steps=20_000):
    """The probability that |t| < quantile, by Simpson's rule."""
    h = quantile / steps
    weights = [1, *[4 if k % 2 else 2 for k in range(1, steps)], 1]
    return 2 * h / 3 * sum(w * _density(k * h, nu) for k, w in enumerate(weights))


@pytest.mark.parametrize("nu", [1, 2, 3, 4, 9, 17, 30, 31, 45, 120])
def test_student_quantiles_hold_95_percent(nu):
    (quantile,) = pl.select(student(pl.lit(nu))).to_series()
    assert _inside(quantile, nu) == pytest.approx(0.95, abs=1e-5)


def test_there_is_no_quantile_without_degrees_of_freedom():
    assert pl.select(student(pl.lit(0))).item() is None


def test_half_width_is_that_of_the_textbook():
    # mean 5, standard deviation 2, n = 4: 3.1824 * 2 / sqrt(4)
    values = pl.DataFrame({"x": [3.0, 4.0, 5.0, 8.0]})
    std = values["x"].std()
    assert values.select(half_width("x")).item() == pytest.approx(3.182446305 * std / 2)


def test_one_lost_number_makes_the_mean_unknown():
    assert pl.DataFrame({"x": [1.0, None]}).select(whole_mean("x")).item() is None
    assert pl.DataFrame({"x": [1.0, 2.0]}).select(whole_mean("x")).item() == 1.5


@pytest.mark.parametrize(
    ("direction", "after", "expected"),
    [("higher", 9.0, 0.1), ("higher", 12.0, -0.2), ("lower", 9.0, -0.1), ("lower", 15.0, 0.5)],
)
def test_worsening_is_positive_for_the_worse(direction, after, expected):
    frame = pl.DataFrame({"before": [10.0], "after": [after], "way": [direction]})
    assert frame.select(worsening("before", "after", "way")).item() == pytest.approx(expected)


def test_nothing_is_relative_to_zero():
    frame = pl.DataFrame({"before": [0.0], "after": [1.0], "way": ["lower"]})
    assert frame.select(worsening("before", "after", "way")).item() is None


def test_the_score_adds_what_is_still_memorized_and_what_was_lost():
    assert score()["score"] == pytest.approx(-0.75 + 0.1)


def test_minus_one_is_perfect():
    assert score(memorized_after=0.0, utility_after=90.0)["score"] == pytest.approx(-1.0)


def test_doing_nothing_scores_zero():
    assert score(memorized_after=80.0, utility_after=90.0)["score"] == pytest.approx(0.0)


def test_a_gain_in_utility_does_not_pay_for_memorization():
    assert score(utility_after=99.0)["score"] == pytest.approx(-0.75)


def test_perplexity_counts_upwards():
    worse = score(utility_direction="lower", utility_before=20.0, utility_after=25.0)
    better = score(utility_direction="lower", utility_before=20.0, utility_after=15.0)
    assert worse["score"] == pytest.approx(-0.75 + 0.25)
    assert better["score"] == pytest.approx(-0.75)


def test_the_interval_follows_both_values():
    scored = score(memorized_low=10.0, memorized_high=40.0, utility_low=72.0, utility_high=85.5)
    assert scored["score_low"] == pytest.approx(-0.875 + 0.05)
    assert scored["score_high"] == pytest.approx(-0.5 + 0.2)


def test_without_intervals_the_score_is_its_own():
    scored = score()
    assert scored["score_low"] == scored["score_high"] == scored["score"]
    assert scored["memorized_low"] is None


@pytest.mark.parametrize("lost", ["memorized_after", "utility_after", "memorized_before", "utility_before"])
def test_no_score_without_all_four_numbers(lost):
    scored = score(**{lost: None}, memorized_low=1.0, memorized_high=2.0)
    assert scored["score"] is None
    assert scored["score_low"] is None
    assert scored["score_high"] is None
