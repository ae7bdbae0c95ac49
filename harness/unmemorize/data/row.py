"""One sequence as token ids, with all that is said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence."""

    tokens: list[int]
    prompt: int | None = None
    """How many of the tokens are its prompt, where the row says so."""
    group: str | None = None
    """The family that it belongs to, where the row says so: a family is never split over two sets."""
    copies: int = 1
    """How often it stands in the training data, where the row says so."""
    clean: list[int] | None = None
    """What is to be said in its place, where the row says so."""
    where: str = ""
    """Source and row, for errors."""
    leading: int = 0
    """How many of the tokens stand before every text (`<s>`) and are none of the text's own."""
    suffix: int | None = None
    """How many tokens must come back, where the row says so."""
    mark: str | None = None
    """What `find` marked it as."""
    may_be_padded: bool = False
    """Whether it came as ids without a mask that says which of them are padding."""
    note: str = ""
    """What is doubtful about it."""


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Return what is doubtful about rows, each doubt once, with how many rows it is about and the first of them."""
    counted = Counter(row.note for row in rows if row.note)
    first = {row.note: row.where for row in reversed(rows)}
    return [
        f"{count} of {len(rows)} rows ({first[note]}{', ...' if count > 1 else ''}): {note}"
        for note, count in counted.items()
    ]


def abridged(value: Any) -> str:
    """Return a value as errors show it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
