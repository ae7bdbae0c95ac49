from __future__ import annotations

import random

import polars as pl
import pytest

from unmemorize.leaderboard.ranking import ranked


def rows(*entries, **columns):
    """Rows of one table from (method, score, low, high)."""
    method, score, low, high = (list(column) for column in zip(*entries, strict=True))
    count = len(entries)
    fields = {
        "method": method, "distribution": [""] * count, "method_config": ["{}"] * count,
        "score": score, "score_low": low, "score_high": high,
        "memorized_after": score, "memorized_direction": ["lower"] * count,
        "utility_after": [90.0] * count, "utility_direction": ["higher"] * count, "seconds": [1.0] * count,
    }  # fmt: skip
    floats = ("score", "score_low", "score_high", "memorized_after", "utility_after", "seconds")
    return pl.DataFrame(fields | columns, schema_overrides=dict.fromkeys(floats, pl.Float64))


def ranks(*entries):
    return dict(ranked(rows(*entries)).select("method", "rank").rows())


def test_clear_differences_are_ranked():
    assert ranks(("b", -0.5, -0.6, -0.4), ("a", -0.9, -1.0, -0.8), ("c", 0.1, 0.0, 0.2)) == {
        "a": 1,
        "b": 2,
        "c": 3,
    }


def test_overlapping_rows_share_a_rank_and_the_next_has_its_position():
    found = ranks(("a", -0.9, -1.0, -0.7), ("b", -0.8, -0.9, -0.6), ("c", -0.2, -0.3, -0.1))
    assert found == {"a": 1, "b": 1, "c": 3}


def test_a_chain_of_overlaps_does_not_make_the_ends_equal():
    found = ranks(("a", -0.9, -1.0, -0.8), ("b", -0.75, -0.85, -0.65), ("c", -0.6, -0.7, -0.5))
    assert found == {"a": 1, "b": 1, "c": 3}


def test_touching_intervals_overlap():
    assert ranks(("a", -0.9, -1.0, -0.8), ("b", -0.7, -0.8, -0.6)) == {"a": 1, "b": 1}


def test_rows_without_intervals_are_points():
    assert ranks(("a", -0.9, None, None), ("b", -0.9, None, None), ("c", -0.8, None, None)) == {
        "a": 1,
        "b": 1,
        "c": 3,
    }


def test_the_base_stands_first_without_a_rank_and_lost_scores_last():
    table = ranked(rows(("lost", None, None, None), ("a", -0.9, None, None), ("base", 0.0, None, None)))
    assert table.select("method", "rank").rows() == [("base", None), ("a", 1), ("lost", None)]


def frontier(*points, way="higher"):
    """Which of the points (memorized, utility, seconds) are on the frontier."""
    memorized, utility, seconds = (list(column) for column in zip(*points, strict=True))
    names = [f"m{number:03d}" for number in range(len(points))]
    table = rows(
        *[(name, -0.5, None, None) for name in names],
        memorized_after=memorized, utility_after=utility, seconds=seconds,
        utility_direction=[way] * len(points),
    )  # fmt: skip
    return ranked(table).sort("method")["frontier"].to_list()


def test_a_dominated_row_is_off_the_frontier():
    assert frontier((0.0, 90.0, 5.0), (10.0, 80.0, 6.0), (20.0, 95.0, 1.0)) == [True, False, True]


def test_equal_rows_are_on_it_together():
    assert frontier((5.0, 90.0, 1.0), (5.0, 90.0, 1.0)) == [True, True]


def test_perplexity_is_better_when_lower():
    assert frontier((5.0, 30.0, 1.0), (5.0, 20.0, 1.0), way="lower") == [False, True]


def test_unknown_seconds_never_dominate():
    assert frontier((5.0, 90.0, None), (5.0, 90.0, 1.0)) == [False, True]


def test_the_base_dominates_a_method_that_only_does_harm():
    table = rows(
        ("base", 0.0, None, None), ("harm", 0.1, None, None),
        memorized_after=[96.0, 97.0], utility_after=[94.0, 93.0],
    )  # fmt: skip
    assert ranked(table)["frontier"].to_list() == [False, False]


@pytest.mark.parametrize("seed", range(5))
def test_the_frontier_is_that_of_comparing_every_pair(seed):
    numbers = random.Random(seed)
    points = [tuple(float(numbers.randint(0, 6)) for _ in range(3)) for _ in range(60)]
    costs = [(memorized, -utility, seconds) for memorized, utility, seconds in points]

    def beaten(cost):
        return any(other != cost and all(a <= b for a, b in zip(other, cost, strict=True)) for other in costs)

    assert frontier(*points) == [not beaten(cost) for cost in costs]
