"""What the errors of other libraries say, in one line."""

from __future__ import annotations

import os
import re
from pickle import UnpicklingError


def system_error(error: BaseException) -> OSError | None:
    """Return what the system said, if that is what an error is about; libraries written in Rust say it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def reason_of(error: Exception) -> str:
    """Return the first line of what an error says; of pickled code just that, since torch advises how to run it."""
    if isinstance(error, UnpicklingError):
        return "it is pickled, with more in it than tensors"
    said = str(getattr(error, "strerror", None) or "").strip() or str(error).strip()
    first = said.splitlines()[0] if said else ""
    return first if " " in first else f"{type(error).__name__}{first and f': {first}'}"
