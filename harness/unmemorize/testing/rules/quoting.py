"""How findings quote an error."""

from __future__ import annotations

from unmemorize.errors import UnmemorizeError, said_by


def said(error: BaseException) -> str:
    """Return an error in one line."""
    text = error.what if isinstance(error, UnmemorizeError) else said_by(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"


def where(error: BaseException) -> str:
    """Return the file and line that an error comes from: the innermost that is none of a library's."""
    places = [("", 0, "")]
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        places.append((frame.f_code.co_filename, trace.tb_lineno, frame.f_globals.get("__name__", "").split(".")[0]))
        trace = trace.tb_next
    own = [place for place in places if place[2] not in _LIBRARIES] or places[-1:]
    return f"{own[-1][0]}:{own[-1][1]}" if own[-1][0] else places[-1][0]


_LIBRARIES = ("", "unmemorize", "torch", "transformers")
