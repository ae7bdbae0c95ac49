"""Which of the found windows are trivial, overlap, or are near-duplicates of another."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from unmemorize.data.duplicates import near_duplicate_groups, without_near_duplicates
from unmemorize.search.found import FoundWindow
from unmemorize.search.triviality import Trivial


def marked(found: Sequence[FoundWindow], trivial: Trivial) -> list[FoundWindow]:
    """Return the windows, in their order, with the marks that depend on all of them.

    Of windows that overlap, as many as possible that do not overlap each other stay unmarked, those that are not
    trivial first. Of those whose suffixes are near-duplicates (more than half of the 8-grams are shared), one stays
    unmarked, again the first that is not trivial; and an overlapping window is a duplicate of what it is like.
    """
    guessed = [trivial.applies(window.copy_share, window.distinct, window.suffix) for window in found]
    overlaps = _overlapping(found, sorted(range(len(found)), key=lambda row: (guessed[row], row)))
    apart = sorted((row for row in range(len(found)) if not overlaps[row]), key=lambda row: (guessed[row], row))
    duplicate = _repeated([window.tokens[window.prompt :] for window in found], apart)
    return [
        dataclasses.replace(window, trivial=guessed[row], overlaps=overlaps[row], duplicate=duplicate[row], group=group)
        for row, (window, group) in enumerate(zip(found, _groups(found), strict=True))
    ]


def _overlapping(found: Sequence[FoundWindow], order: Sequence[int]) -> list[bool]:
    """Take windows in `order`, and mark those that share tokens with one that was taken before."""
    taken: dict[str, set[int]] = defaultdict(set)
    marks = [False] * len(found)
    for row in order:
        window = found[row]
        tokens = range(window.token_offset, window.token_offset + len(window.tokens))
        covered = taken[window.source]
        marks[row] = tokens[0] in covered or tokens[-1] in covered  # all are equally long
        if not marks[row]:
            covered.update(tokens)
    return marks


def _repeated(suffixes: Sequence[list[int]], apart: Sequence[int]) -> list[bool]:
    """Mark what is like an earlier one of the windows `apart`, or like one of these that is left.

    Overlapping windows join no families here: through them, everything in a long regurgitated text would be alike.
    """
    marks, seen = [True] * len(suffixes), set[int]()
    for row, family in zip(apart, near_duplicate_groups([suffixes[row] for row in apart]), strict=True):
        marks[row] = family in seen
        seen.add(family)
    others = sorted(set(range(len(suffixes))) - set(apart))
    left = [suffixes[row] for row in apart if not marks[row]]
    for index in without_near_duplicates([suffixes[row] for row in others], left):
        marks[others[index]] = False
    return marks


def _groups(found: Sequence[FoundWindow]) -> list[int]:
    """Return the families of near-duplicates, joined where windows overlap, numbered as they appear."""
    alike = near_duplicate_groups([window.tokens[window.prompt :] for window in found])
    joined = list(range(max(alike, default=-1) + 1))

    def root(group: int) -> int:
        while joined[group] != group:
            group = joined[group]
        return group

    last: dict[str, int] = {}
    for row in sorted(range(len(found)), key=lambda row: found[row].token_offset):
        window = found[row]
        before = last.get(window.source)
        if before is not None and found[before].token_offset + len(found[before].tokens) > window.token_offset:
            one, other = sorted((root(alike[before]), root(alike[row])))
            joined[other] = one
        last[window.source] = row
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(group), len(numbers)) for group in alike]
