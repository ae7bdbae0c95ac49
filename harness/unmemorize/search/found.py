"""A regurgitated window as it is written down, with the signs that tell regurgitation from predictability."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final

from unmemorize.errors import DataError

DIGITS: Final = 4
"""Decimals of the numbers that are written down."""


@dataclass(frozen=True, slots=True)
class FoundWindow:
    """A window that the model regurgitates. The last four fields are about its place among all that were found."""

    tokens: list[int]
    """Prompt and suffix."""
    prompt: int
    """Tokens of the prompt."""
    suffix: int
    """Tokens of the suffix."""
    prompt_text: str
    suffix_text: str
    source: str
    """The document: a file, topic, article or row."""
    char_offset: int | None
    """Where in the document's text the prompt begins; none where the tokenizer does not say."""
    token_offset: int
    """Where among the document's tokens the prompt begins."""
    logprob: float
    """Log-probability of the suffix, in nats."""
    margin: float
    """The smallest difference between the two largest logits; near 0 another machine may say otherwise."""
    copy_share: float
    """Share of the suffix's 4-grams that already occur in the prompt."""
    distinct: int
    """Distinct tokens of the suffix."""
    control_extracted: bool | None = None
    """Whether the control model regurgitates the suffix too; none without a control."""
    control_share: float | None = None
    """The share of the suffix's tokens that the control gets right."""
    trivial: bool = False
    """Could have been guessed: see `Trivial`."""
    overlaps: bool = False
    """Shares tokens of the document with a window that does not overlap others."""
    duplicate: bool = False
    """Its suffix is a near-duplicate of that of a window which neither overlaps nor is a duplicate itself."""
    group: int = 0
    """Its family: windows that overlap, or whose suffixes are near-duplicates. Never split one over two sets."""

    @property
    def perplexity(self) -> float:
        """The perplexity of the suffix."""
        return math.exp(-self.logprob / self.suffix)

    @property
    def text(self) -> str:
        """The text of prompt and suffix."""
        return self.prompt_text + self.suffix_text

    def to_row(self) -> dict[str, Any]:
        """Return the row of a JSONL file: `tokens`, `text`, then everything else."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["perplexity"] = round(self.perplexity, DIGITS)
        return {"tokens": fields.pop("tokens"), "text": self.text, **fields}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> FoundWindow:
        """Read what `to_row` gave.

        Raises:
            DataError: the row is none of those.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in row]
        if missing:
            raise DataError(
                f"a row of found windows has no {missing[0]!r}",
                expected=f"the fields {', '.join(names)}",
                fix="write the file anew with `unmemorize find`",
            )
        return cls(**{name: row[name] for name in names})
