"""What came of a search: the regurgitated windows, counted with and without what makes them worth less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.errors import DataError
from unmemorize.files.atomic import write_file
from unmemorize.files.places import writing
from unmemorize.search.found import FoundWindow
from unmemorize.untrusted import json_text

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Sequences


class Counts(NamedTuple):
    """How many windows are regurgitated, each number at most the one before."""

    extractable: int
    not_overlapping: int
    """Of these, as many as do not overlap."""
    distinct: int
    """Of these, without near-duplicates."""
    families: int
    """Groups of windows that overlap or are near-duplicates."""

    @classmethod
    def of(cls, windows: Sequence[FoundWindow]) -> Counts:
        """Count marked windows."""
        not_overlapping = [window for window in windows if not window.overlaps]
        distinct = [window for window in not_overlapping if not window.duplicate]
        return cls(len(windows), len(not_overlapping), len(distinct), len({window.group for window in windows}))


@dataclass(frozen=True, slots=True)
class Findings:
    """The windows that a model regurgitates, and how much was searched."""

    windows: tuple[FoundWindow, ...]
    """In the order of the corpus."""
    checked: int
    """Windows that were checked."""
    documents: int
    tokens: int
    """Tokens of the corpus that were read."""
    seconds: float
    """Spent on checking, over all runs."""
    settings: dict[str, Any]
    short: int = 0
    """Documents that are shorter than a window, so that nothing of them was checked."""

    def kept(self, *, trivial: bool = True, overlaps: bool = True, duplicates: bool = True) -> list[FoundWindow]:
        """Return the windows without the trivial, the overlapping or the near-duplicate ones."""
        return [
            window
            for window in self.windows
            if (trivial or not window.trivial)
            and (overlaps or not window.overlaps)
            and (duplicates or not window.duplicate)
        ]

    def sequences(self, *, trivial: bool = False, overlaps: bool = False, duplicates: bool = False) -> Sequences:
        """Return the windows as a forget set; by default only those that count.

        Raises:
            DataError: none is left.
        """
        from unmemorize.contracts.testbed import Sequences

        chosen = self.kept(trivial=trivial, overlaps=overlaps, duplicates=duplicates)
        if not chosen:
            raise DataError(
                f"of {len(self.windows)} regurgitated windows none is left to be forgotten",
                expected="at least one window that is neither trivial nor overlapping nor a near-duplicate",
                fix="findings.sequences(trivial=True) keeps the trivial ones; or search more text",
            )
        return Sequences.from_rows([window.tokens for window in chosen], prompt=chosen[0].prompt)

    def write(self, path: Path, windows: Sequence[FoundWindow] | None = None) -> None:
        """Write windows as JSONL, one row each, all at once: those given, or all that were found.

        Raises:
            DataError: the file cannot be written.
        """
        rows = [json_text(window.to_row()) for window in (self.windows if windows is None else windows)]
        with writing(path, "choose another place with --out, e.g. --out found.jsonl"):
            write_file(path, "".join(f"{row}\n" for row in rows).encode())

    def report(self) -> dict[str, Any]:
        """Return the counts as JSON-ready facts."""
        known = [
            window.control_extracted for window in self.kept(trivial=False) if window.control_extracted is not None
        ]
        return {
            "documents": self.documents,
            "too_short": self.short,
            "tokens": self.tokens,
            "checked": self.checked,
            "seconds": round(self.seconds, 3),
            "all": Counts.of(self.windows)._asdict(),
            "not_trivial": Counts.of(self.kept(trivial=False))._asdict(),
            "control_extracts_not_trivial": sum(known) if known else None,
            "settings": self.settings,
        }
