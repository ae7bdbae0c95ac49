from __future__ import annotations

import pytest
import torch

from unmemorize import DataError
from unmemorize.data.row import Row
from unmemorize.data.sequences import RowSet
from unmemorize.data.splits import check_disjoint, families, split_off, without_near_duplicates_of


def random_rows(count: int, length: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 10_000, (count, length), generator=generator).tolist()


def made(rows: list[list[int]], groups: list[str | None] | None = None, name: str = "forget = 'x'") -> RowSet:
    named = groups or [None] * len(rows)
    pairs = enumerate(zip(rows, named, strict=True))
    return RowSet(name, [Row(tokens, group=group, where=f"{name}, row {i}") for i, (tokens, group) in pairs])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_near_duplicates_and_groups_join_in_a_chain() -> None:
    rows = random_rows(4, 40, 0)
    rows[1] = [*rows[0][:39], 1]  # like row 0
    assert families(made(rows)) == [0, 0, 1, 2]
    assert families(made(rows, [None, "a", "a", None])) == [0, 0, 0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_families_stay_on_one_side(seed: int) -> None:
    rows = random_rows(30, 40, seed)
    for index in range(0, 30, 3):
        rows[index + 1] = [*rows[index][:39], index]
    split = split_off(made(rows), 0.3, "forget_unseen", generator(seed))
    kept = {row.where for row in split.kept.rows}
    taken = {row.where for row in split.taken.rows}
    assert kept.isdisjoint(taken)
    assert len(kept) + len(taken) == 30
    assert 7 <= len(taken) <= 9
    for index in range(0, 30, 3):
        pair = {f"forget = 'x', row {index}", f"forget = 'x', row {index + 1}"}
        assert pair <= kept or pair <= taken


def test_a_split_depends_on_the_generator_alone() -> None:
    rows = made(random_rows(20, 20, 0))

    def taken(seed: int) -> list[str]:
        return [row.where for row in split_off(rows, 0.25, "forget_unseen", generator(seed)).taken.rows]

    assert taken(0) == taken(0)
    assert taken(0) != taken(1)


def test_one_family_cannot_be_split() -> None:
    rows = made(random_rows(6, 20, 0), ["all"] * 6)
    with pytest.raises(DataError, match="1 families of near-duplicates, the largest of 6") as caught:
        split_off(rows, 0.5, "forget_unseen", generator())
    assert "forget_unseen" in caught.value.fix


def test_texts_like_memorized_rows_are_left_out_and_counted() -> None:
    forget = made(random_rows(3, 40, 0))
    texts = random_rows(5, 100, 1)
    texts[2][30:70] = forget.rows[1].tokens
    kept = without_near_duplicates_of(made(texts, name="retain = 'y'"), [forget], "forget")
    assert [row.where for row in kept.rows] == [f"retain = 'y', row {i}" for i in (0, 1, 3, 4)]
    assert kept.dropped == {"near-duplicates of forget": 1}


def test_nothing_left_is_an_error() -> None:
    forget = made(random_rows(3, 40, 0))
    with pytest.raises(DataError, match="every row is a near-duplicate") as caught:
        without_near_duplicates_of(made([row.tokens for row in forget.rows], name="retain = 'y'"), [forget], "forget")
    assert caught.value.expected
    assert "near_duplicates" not in caught.value.fix  # they are equal, and would be refused
    alike = made([[*row.tokens[:-1], 0] for row in forget.rows], name="retain = 'y'")
    with pytest.raises(DataError, match="near_duplicates = 'keep' keeps"):
        without_near_duplicates_of(alike, [forget], "forget")


def test_equal_rows_are_named_both() -> None:
    forget = made(random_rows(3, 10, 0))
    retain = made([*random_rows(1, 10, 1), forget.rows[2].tokens], name="retain = 'y'")
    with pytest.raises(DataError) as caught:
        check_disjoint(retain, [forget], "forget")
    assert caught.value.what == "retain = 'y', row 1 is the same sequence as forget = 'x', row 2"
    check_disjoint(made(random_rows(2, 10, 3)), [forget], "forget")
