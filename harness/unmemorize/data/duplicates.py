"""Near-duplicates among rows of tokens: families that share most of their n-grams."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import floor

Gram = tuple[int, ...]


def near_duplicate_groups(rows: Sequence[Sequence[int]], *, n: int = 8, share: float = 0.5) -> list[int]:
    """Return the family of each row, numbered from 0 in the order of first appearance.

    Two rows belong together if the n-grams that they share are more than `share` of the n-grams of the one that has
    fewer; families are closed under that (a like b, b like c: one family). A row shorter than `n` counts as one gram.

    Cost: rows with equal n-grams count once; the others are compared only where they share one of the rarest n-grams of
    the smaller row, which every pair above `share` does (prefix filtering, Chaudhuri et al. 2006), so not all pairs.
    """
    grams = [_grams(row, n) for row in rows]
    families = _Families(len(rows))
    first: dict[frozenset[Gram], int] = {}
    for index, own in enumerate(grams):
        families.join(index, first.setdefault(own, index))
    for one, other in _candidates(grams, list(first.values()), share):
        if families.of(one) != families.of(other) and _alike(grams[one], grams[other], share):
            families.join(one, other)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(families.of(index), len(numbers)) for index in range(len(rows))]


def without_near_duplicates(
    rows: Sequence[Sequence[int]], of: Sequence[Sequence[int]], *, n: int = 8, share: float = 0.5
) -> list[int]:
    """Return the indices of the `rows` that are no near-duplicates of any row in `of`, in their order.

    As in `near_duplicate_groups`, but only direct likeness counts. Rows may be much longer than those in `of`: one that
    holds most of a row in `of` is a near-duplicate of it.
    """
    others = [_grams(row, n) for row in of]
    index: dict[Gram, list[int]] = defaultdict(list)
    for number, grams in enumerate(others):
        for gram in grams:
            index[gram].append(number)
    kept = []
    for number, row in enumerate(rows):
        own = _grams(row, n)
        shared = Counter(other for gram in own for other in index.get(gram, ()))
        if not any(_above(count, len(own), len(others[other]), share) for other, count in shared.items()):
            kept.append(number)
    return kept


def _grams(row: Sequence[int], n: int) -> frozenset[Gram]:
    tokens = tuple(row)
    return frozenset(tokens[start : start + n] for start in range(max(1, len(tokens) - n + 1)))


def _candidates(grams: Sequence[frozenset[Gram]], rows: Sequence[int], share: float) -> Iterator[tuple[int, int]]:
    """Yield every pair of `rows` that can be above `share`, and few others, the smaller row first."""
    frequency = Counter(gram for row in rows for gram in grams[row])
    index: dict[Gram, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: -len(grams[row])):
        rarest = sorted(grams[row], key=lambda gram: (frequency[gram], gram))
        # Sharing none of these leaves at most `share` of the grams to share.
        needed = rarest[: len(rarest) - floor(share * len(rarest))]
        for other in sorted({other for gram in needed for other in index.get(gram, ())}):
            yield row, other
        for gram in grams[row]:
            index[gram].append(row)


def _alike(one: frozenset[Gram], other: frozenset[Gram], share: float) -> bool:
    return _above(len(one & other), len(one), len(other), share)


def _above(shared: int, one: int, other: int, share: float) -> bool:
    return shared > share * min(one, other)


class _Families:
    """Union-find over row numbers."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def of(self, row: int) -> int:
        """Return the row that stands for the family of `row`."""
        while self._parents[row] != row:
            self._parents[row] = self._parents[self._parents[row]]
            row = self._parents[row]
        return row

    def join(self, one: int, other: int) -> None:
        """Make one family of two; the earlier row stands for it."""
        first, second = sorted((self.of(one), self.of(other)))
        self._parents[second] = first
