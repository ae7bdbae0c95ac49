"""Families of near-duplicates are exactly those that comparing all pairs finds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

import pytest

from unmemorize.data.duplicates import near_duplicate_groups, without_near_duplicates


def grams(row: Sequence[int], n: int) -> set[tuple[int, ...]]:
    return {tuple(row[start : start + n]) for start in range(max(1, len(row) - n + 1))}


def alike(one: Sequence[int], other: Sequence[int], n: int, share: float) -> bool:
    first, second = grams(one, n), grams(other, n)
    return len(first & second) > share * min(len(first), len(second))


def naive_groups(rows: Sequence[Sequence[int]], n: int, share: float) -> list[int]:
    """Compare all pairs, and paint until nothing changes."""
    colours = list(range(len(rows)))
    pairs = [pair for pair in combinations(range(len(rows)), 2) if alike(rows[pair[0]], rows[pair[1]], n, share)]
    changed = True
    while changed:
        changed = False
        for one, other in pairs:
            least = min(colours[one], colours[other])
            changed |= colours[one] != colours[other]
            colours[one] = colours[other] = least
    numbers: dict[int, int] = {}
    return [numbers.setdefault(colour, len(numbers)) for colour in colours]


def mutated(generator: random.Random, count: int) -> list[list[int]]:
    """Rows of different lengths that share pieces with each other."""
    rows = [[generator.randrange(40) for _ in range(generator.randint(1, 30))] for _ in range(6)]
    while len(rows) < count:
        row = list(generator.choice(rows))
        for _ in range(generator.randint(0, 4)):
            row[generator.randrange(len(row))] = generator.randrange(40)
        cut = generator.randrange(len(row))
        rows.append(row[cut:] + generator.choice(rows)[: generator.randint(1, 20)])
    return rows


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("n", "share"), [(8, 0.5), (3, 0.5), (4, 0.0), (2, 0.9), (3, 1 / 3)])
def test_families_are_those_of_all_pairs(seed: int, n: int, share: float) -> None:
    rows = mutated(random.Random(seed), 40)
    expected = naive_groups(rows, n, share)
    assert near_duplicate_groups(rows, n=n, share=share) == expected


def test_the_rows_to_compare_really_hold_families() -> None:
    found = naive_groups(mutated(random.Random(1), 40), 8, 0.5)
    assert 8 < len(set(found)) < 35


def test_half_of_the_grams_is_not_yet_a_duplicate() -> None:
    whole = list(range(31))  # 24 grams of 8
    half = whole[:19] + [100 + token for token in range(12)]  # shares 12 of them
    more = whole[:20] + [100 + token for token in range(11)]  # shares 13 of them
    assert near_duplicate_groups([whole, half]) == [0, 1]
    assert near_duplicate_groups([whole, more]) == [0, 0]


def test_families_are_closed_and_numbered_as_they_appear() -> None:
    left, right = list(range(40)), list(range(25, 65))
    between = list(range(10, 55))
    assert near_duplicate_groups([[9] * 20, left, right]) == [0, 1, 2]
    assert near_duplicate_groups([[9] * 20, left, right, between]) == [0, 1, 1, 1]


def test_equal_rows_are_one_family_however_short() -> None:
    assert near_duplicate_groups([[1, 2], [3], [1, 2], [], []]) == [0, 1, 0, 2, 2]
    assert near_duplicate_groups([]) == []


def test_many_equal_rows_are_compared_once() -> None:
    row = list(range(40))
    assert near_duplicate_groups([row] * 20_000) == [0] * 20_000


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_kept_that_are_like_none_of_the_others(seed: int) -> None:
    rows = mutated(random.Random(seed), 40)
    first, others = rows[:25], rows[25:]
    expected = [number for number, row in enumerate(first) if not any(alike(row, other, 3, 0.5) for other in others)]
    assert without_near_duplicates(first, others, n=3) == expected
    assert without_near_duplicates(first, []) == list(range(25))


def test_a_long_row_that_holds_a_short_one_is_a_near_duplicate() -> None:
    window = list(range(100, 140))
    assert without_near_duplicates([[*range(50), *window, *range(50)], list(range(300))[200:]], [window]) == [1]
