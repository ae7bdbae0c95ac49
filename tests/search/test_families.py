"""Marks on hand-built windows: trivial, overlapping, near-duplicate, and the family of each."""

from __future__ import annotations

from typing import Any

import pytest

from unmemorize.errors import DataError
from unmemorize.search.families import marked
from unmemorize.search.findings import Counts, Findings
from unmemorize.search.found import FoundWindow
from unmemorize.search.triviality import Trivial

PROMPT, SUFFIX = 4, 20


def window(first: int, source: str = "a", offset: int = 0, **fields: Any) -> FoundWindow:
    """A window whose tokens count from `first`."""
    given = {"copy_share": 0.0, "distinct": SUFFIX} | fields
    return FoundWindow(
        tokens=list(range(first, first + PROMPT + SUFFIX)), prompt=PROMPT, suffix=SUFFIX, prompt_text="p",
        suffix_text="s", source=source, char_offset=offset, token_offset=offset, logprob=-1.0, margin=1.0, **given,
    )  # fmt: skip


def marks(*found: FoundWindow) -> list[tuple[bool, bool, bool, int]]:
    return [(w.trivial, w.overlaps, w.duplicate, w.group) for w in marked(found, Trivial())]


def test_windows_that_have_nothing_in_common_stand_alone() -> None:
    assert marks(window(0), window(100, offset=24), window(200, "b")) == [
        (False, False, False, 0),
        (False, False, False, 1),
        (False, False, False, 2),
    ]


def test_trivial_by_copying_and_by_saying_little() -> None:
    found = marks(window(0, copy_share=0.3), window(100, "b", distinct=9), window(200, "c", distinct=10))
    assert [trivial for trivial, *_ in found] == [True, True, False]


def test_overlapping_windows_are_one_family_of_which_as_many_as_possible_count() -> None:
    offsets = [0, 12, 24, 36, 100]
    found = marks(*(window(1000 * number, offset=offset) for number, offset in enumerate(offsets)))
    assert [overlaps for _, overlaps, _, _ in found] == [False, True, False, True, False]
    assert [group for *_, group in found] == [0, 0, 0, 0, 1]


def test_equal_offsets_in_two_documents_do_not_overlap() -> None:
    assert [row[1] for row in marks(window(0), window(500, "b"))] == [False, False]


def test_a_window_that_is_not_trivial_goes_before_a_trivial_one() -> None:
    found = marks(window(0, copy_share=0.9), window(500, offset=10))
    assert found == [(True, True, False, 0), (False, False, False, 0)]


def test_near_duplicates_in_two_documents_are_one_family() -> None:
    # 20 tokens have 13 8-grams: shifted by 6 they share 7 of them, by 7 only 6.
    assert marks(window(0), window(6, "b"))[1] == (False, False, True, 0)
    assert marks(window(0), window(7, "b"))[1] == (False, False, False, 1)


def test_of_near_duplicates_one_stays_that_neither_overlaps_nor_is_trivial() -> None:
    overlapped = [window(900, "b", 0), window(0, "b", 10)]
    found = marks(window(0, "a", copy_share=0.9), *overlapped, window(0, "c"))
    assert [duplicate for _, _, duplicate, _ in found] == [True, False, True, False]  # the last one counts
    assert [group for *_, group in found] == [0, 0, 0, 0]  # through the overlap in b, all are one family


def test_a_long_regurgitated_text_is_no_duplicate_of_itself() -> None:
    """Each window is a near-duplicate of the next one, and those that do not overlap share nothing."""
    found = marks(*(window(offset, offset=offset) for offset in range(0, 73, 4)))
    apart = [number for number, (_, overlaps, _, _) in enumerate(found) if not overlaps]
    assert apart == [0, 6, 12, 18]
    assert [number for number, (_, _, duplicate, _) in enumerate(found) if not duplicate and number in apart] == apart
    assert found[1] == (False, True, True, 0)  # shifted by 4 tokens, it is like the first
    assert found[3] == (False, True, False, 0)  # in the middle between two, it is like neither
    assert {group for *_, group in found} == {0}


def test_families_join_over_chains_of_both_kinds() -> None:
    found = marks(window(0, "a", 0), window(500, "a", 10), window(500, "b", 0), window(800, "b", 5), window(77, "c"))
    assert [group for *_, group in found] == [0, 0, 0, 0, 1]


def test_no_windows_have_no_marks() -> None:
    assert marks() == []


def findings(*found: FoundWindow) -> Findings:
    rows = tuple(marked(found, Trivial()))
    return Findings(rows, checked=50, documents=3, tokens=900, seconds=2.0, settings={"prompt": PROMPT})


def test_the_counts_go_down_step_by_step() -> None:
    found = findings(
        window(0, "a", 0), window(500, "a", 10), window(0, "b"), window(900, "c"), window(990, "d", distinct=3)
    )
    assert Counts.of(found.windows) == Counts(extractable=5, not_overlapping=4, distinct=3, families=3)
    report = found.report()
    assert report["all"] == {"extractable": 5, "not_overlapping": 4, "distinct": 3, "families": 3}
    assert report["not_trivial"] == {"extractable": 4, "not_overlapping": 3, "distinct": 2, "families": 2}
    assert (report["checked"], report["control_extracts_not_trivial"]) == (50, None)
    kept = found.kept(trivial=False, overlaps=False, duplicates=False)
    assert [row.source for row in kept] == ["a", "c"]


def test_a_forget_set_holds_what_counts() -> None:
    found = findings(window(0, "a", 0), window(500, "a", 10), window(990, "d", distinct=3))
    forget = found.sequences()
    assert forget.tokens.tolist() == [list(range(24))]
    assert forget.suffix_starts.tolist() == [PROMPT]
    assert len(found.sequences(trivial=True, overlaps=True)) == 3
    with pytest.raises(DataError, match="of 1 regurgitated windows none is left") as error:
        findings(window(990, "d", distinct=3)).sequences()
    assert "trivial=True" in error.value.fix


def test_the_control_is_counted() -> None:
    found = findings(
        window(0, "a", control_extracted=True, control_share=1.0),
        window(500, "b", control_extracted=False, control_share=0.5),
        window(900, "c", control_extracted=True, control_share=1.0, distinct=2),
    )
    assert found.report()["control_extracts_not_trivial"] == 1
