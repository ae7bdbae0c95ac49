"""What a command says when it ends by an error that nobody expected: a bug, a full disk, no memory left."""

from __future__ import annotations

import errno
import traceback
from importlib.metadata import PackageNotFoundError, metadata

from unmemorize.errors import UnmemorizeError, said_by

BUG = 70
"""The status of a command that ends by a bug: EX_SOFTWARE of sysexits.h."""

_SURROUNDINGS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ENAMETOOLONG, errno.ENOMEM,
})  # fmt: skip
"""Errors of the system that no program can help."""
_SAID = 500
"""Characters of what an error says that are shown."""


def in_words(error: BaseException) -> UnmemorizeError:
    """Return the error in three parts."""
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        return UnmemorizeError(
            f"{error.filename or 'standard output'}: {error.strerror}",
            expected="a system on which files can be read and written",
            fix="free space, or choose a place where you may write; then give the same command again",
        )
    if _is_memory(error):
        return UnmemorizeError(
            f"there is no memory left ({_origin(error)})",
            expected="data and a model that fit into this machine's memory",
            fix="use a smaller model, fewer or shorter rows, or a machine with more memory",
        )
    if isinstance(error, RecursionError):
        what = f"something is nested too deeply, or calls itself without end ({_origin(error)})"
    else:
        what = f"a bug in unmemorize, not in what you typed: {type(error).__name__}: {_said(error)} ({_origin(error)})"
    return UnmemorizeError(
        what,
        expected="a result, or an error that says what to change",
        fix=f"report it {_reported()}, with what the same command prints with --traceback",
    )


def status_of(error: BaseException) -> int:
    """Return the exit status: an error's own, 2 for what the system lacks, 70 for a bug."""
    if isinstance(error, UnmemorizeError):
        return error.status
    lacking = isinstance(error, OSError) and error.errno in _SURROUNDINGS
    return 2 if lacking or _is_memory(error) else BUG


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("OutOfMemory" in type(error).__name__ or "allocate memory" in _said(error))
    )


def _said(error: BaseException) -> str:
    return " ".join(said_by(error).split())[:_SAID]


def _origin(error: BaseException) -> str:
    """Return the module and line where it was raised; a path would show whose machine it is."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return "nowhere"
    frame, line = frames[-1]
    return f"{frame.f_globals.get('__name__', '?')}, line {line}"


def _reported() -> str:
    try:
        places = dict(url.split(", ", 1) for url in metadata("unmemorize").get_all("Project-URL") or ())
    except PackageNotFoundError:
        places = {}
    known = [places[name] for name in ("Issues", "Repository", "Homepage") if name in places] or [*places.values()]
    return f"at {known[0]}" if known else "to those from whom you have unmemorize"
