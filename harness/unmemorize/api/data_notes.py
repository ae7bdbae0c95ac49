"""What stands in reports about the sequences that were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_MEMORIZED: Final = ("forget", "forget_unseen")
_CALLED: Final = {"text": "holdout"}


def about_sets(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return a line about each set, about special tokens and about each doubt, for card and report."""
    about = {}
    for name, count in facts["rows"].items():
        like = sum(number for reason, number in _left_out(facts, name) if "near-duplicates" in reason)
        kind = facts["kinds"].get(name, "set apart")
        what = f"{count} sequences" if name in _MEMORIZED else f"{count} pieces ({like} like the forget set left out)"
        about[f"{_CALLED.get(name, name)} set"] = f"{kind}, {what}"
    return (
        about
        | {"special tokens": facts["special_tokens"]}
        | {f"note {number}": note for number, note in enumerate(data_notes(facts), start=1)}
    )


def data_notes(facts: Mapping[str, Any]) -> list[str]:
    """Return what a user should know about the sets: doubts about rows, and rows that were left out."""
    gone = [
        f"{count} rows of {_CALLED.get(name, name)} left out: {reason}"
        for name in facts.get("dropped", {})
        for reason, count in _left_out(facts, name)
    ]
    return [*facts.get("notes", []), *gone]


def _left_out(facts: Mapping[str, Any], name: str) -> Iterator[tuple[str, int]]:
    return iter((reason, count) for reason, count in facts["dropped"].get(name, {}).items() if count)
