"""What a record says about a failure: text that is safe to keep, whatever the error itself does when it is asked."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from unmemorize.errors import UnmemorizeError, said_by
from unmemorize.untrusted import plain

LONGEST_REASON, LONGEST_TRACE = 2_000, 20_000
"""Characters that a record keeps."""


class Failure(NamedTuple):
    """Why a cell failed."""

    reason: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error that was raised."""
        text = said_by(error)
        reason = text if isinstance(error, UnmemorizeError) else f"{type(error).__name__}: {text}"
        return cls.said(reason, _trace(error))

    @classmethod
    def said(cls, reason: str, trace: str = "") -> Failure:
        """Describe what was found from outside, in words and with what was last seen."""
        return cls(kept(reason, LONGEST_REASON), kept(trace, LONGEST_TRACE))

    def also(self, words: str) -> Failure:
        """Add something to the reason."""
        return self._replace(reason=kept(f"{self.reason}; {words}", LONGEST_REASON))


def kept(text: str, most: int) -> str:
    """Return at most so many characters of a text, its beginning and its end, without what would act on a terminal."""
    if len(text) > most:
        cut = f"\n... {len(text) - most:,} characters left out ...\n"
        half = (most - len(cut)) // 2
        text = f"{text[:half]}{cut}{text[-half:]}"
    return plain(text, most)


def _trace(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(error)
    except BaseException as second:  # errors may hold each other, or properties that raise
        return f"(its traceback raised {type(second).__name__})"
    return "".join(kept(line, LONGEST_REASON) for line in lines)
