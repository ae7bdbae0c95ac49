"""What the errors of other libraries say, in one line."""

from __future__ import annotations

from pickle import UnpicklingError


def reason_of(error: Exception) -> str:
    """Return the first line of what an error says; of pickled code just that, since torch advises how to run it."""
    if isinstance(error, UnpicklingError):
        return "it is pickled, with more in it than tensors"
    said = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(said).splitlines()[0]
