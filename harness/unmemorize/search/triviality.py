"""Signs that a regurgitated window could have been guessed: it copies its prompt, or says little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_GRAM = 4


class Trivial(NamedTuple):
    """What makes a regurgitated window trivial: predictable from its prompt, so that regurgitating it proves no
    memorization.

    Years, numbered names, rulers and repeated lines are such windows; in small models they are nearly all that is
    regurgitated.
    """

    copy_share: float = 0.25
    """From this share of suffix 4-grams that already occur in the prompt on."""
    distinct: int | None = None
    """Or with fewer distinct suffix tokens than this; by default 16, or half of a suffix of fewer than 32 tokens."""

    def applies(self, copied: float, distinct: int, suffix: int) -> bool:
        """Say whether a window with these signs and that many suffix tokens is trivial."""
        return copied >= self.copy_share or distinct < self.least_distinct(suffix)

    def least_distinct(self, suffix: int) -> int:
        """Return the number of distinct tokens that a suffix of that length must have."""
        return min(16, suffix // 2) if self.distinct is None else self.distinct


def copy_share(prompt: Sequence[int], suffix: Sequence[int]) -> float:
    """Return the share of the 4-grams of `suffix` that occur in `prompt`; 0 for a suffix of fewer than 4 tokens."""
    shown = set(_grams(prompt))
    said = _grams(suffix)
    return sum(gram in shown for gram in said) / len(said) if said else 0.0


def _grams(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[start : start + _GRAM]) for start in range(len(tokens) - _GRAM + 1)]
