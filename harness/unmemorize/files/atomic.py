"""Files and folders that are whole or absent: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unmemorize.files.processes import is_running, machine

_PREFIX, _SUFFIX = ".unmemorize-", ".partial"
_ABANDONED = 86_400.0
"""Seconds after which a partial file of another machine, of which nobody here knows whether it lives, is removed."""
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


@contextmanager
def atomic_file(place: Path) -> Iterator[Path]:
    """Give the path of a file to be written, which takes the place of `place` when the block ends well.

    Until then, and if anything is raised or the process dies, what stands at `place` is as it was. Folders that are
    missing are made at the end. A link is followed, and the mode of a file that is replaced is kept.

    Raises:
        OSError: it cannot be written, or what stands there is no ordinary file that may be written.
    """
    place = _real(place)
    _check_file(place)
    partial = _beside(place)
    try:
        yield partial
        _flush(partial)
        if place.exists():
            shutil.copymode(place, partial)
        _move(partial, place)
    except BaseException:
        _remove(partial)
        raise


def write_file(place: Path, content: bytes) -> None:
    """Write a whole file or nothing; into a device or pipe that stands at `place` it is written directly.

    Raises:
        OSError: it cannot be written; also a pipe that nobody reads.
    """
    if _is_stream(place):
        with open(place, "wb", opener=_without_waiting) as stream:
            stream.write(content)
        return
    with atomic_file(place) as partial:
        partial.write_bytes(content)


def read_file(place: Path) -> bytes:
    """Return what a file holds; a pipe into which nobody writes holds nothing, and is not waited for.

    Raises:
        OSError: it cannot be read.
    """
    with open(place, "rb", opener=_without_waiting) as stream:
        return stream.read()


def _is_stream(place: Path) -> bool:
    """Whether a device or pipe stands there, or what a process has open: nothing that could be renamed over."""
    return place.exists() and (str(place).startswith(_STREAMS) or not (place.is_file() or place.is_dir()))


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe at once, or not at all: the system would wait until somebody holds its other end."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if os.name != "nt":
        os.set_blocking(descriptor, True)
    return descriptor


@contextmanager
def atomic_folder(place: Path, *, last: str = "", replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to be filled, which takes the place of `place` when the block ends well.

    A folder that stands there empty (a volume, say) is kept: what was written is moved into it entry by entry, `last`
    at the end. Until then, and if anything is raised or the process dies, `place` is as it was.

    Args:
        place: absent, or an empty folder.
        last: the entry without which the folder is not read as complete.
        replace: a folder that stands there is replaced, whatever it holds.

    Raises:
        OSError: it cannot be written, or `place` holds something.
    """
    place = _real(place)
    fill = place.is_dir() and not replace
    partial = place / _partial() if fill else _beside(place)
    partial.mkdir()
    try:
        yield partial
        mode = partial.stat().st_mode & 0o666
        for folder, _, files in os.walk(partial, topdown=False):
            for file in files:
                os.chmod(Path(folder, file), mode)  # as the umask says, whatever a library thinks
                _flush(Path(folder, file))
            _flush(Path(folder))
        if fill:
            _fill(place, partial, last)
        else:
            _move(partial, place, replace=replace)
    except BaseException:
        _remove(partial)
        raise


def _check_file(place: Path) -> None:
    """Refuse a file that may not be written, though its folder may, and anything else that stands there."""
    if place.exists() and not os.access(place, os.W_OK):
        raise _error(errno.EACCES, place)
    if place.exists() and not place.is_file():
        raise _error(errno.EISDIR if place.is_dir() else errno.EEXIST, place)


def check_place(place: Path) -> None:
    """See that a file at `place`, or in the folder that is there, can be written; remove what killed processes left.

    Raises:
        OSError: it cannot.
    """
    if _is_stream(place):
        return
    real = _real(place)
    if not real.is_dir():
        _check_file(real)
    probe = real / _partial() if real.is_dir() else _beside(real)
    sweep(probe.parent)
    try:
        probe.write_bytes(b"x")
    finally:
        _remove(probe)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder among the system's temporary ones, and remove what killed processes left there."""
    home = Path(tempfile.gettempdir())
    sweep(home)
    folder = home / _partial()
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep(folder: Path) -> None:
    """Remove the partial files and folders in `folder` whose writers are dead."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _is_partial(path) and _is_abandoned(path):
                _remove(path)


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but partial files and folders."""
    return all(map(_is_partial, folder.iterdir()))


def _is_partial(path: Path) -> bool:
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def _is_abandoned(partial: Path) -> bool:
    where, _, rest = partial.name.removeprefix(_PREFIX).partition("-")
    process = rest.partition("-")[0]
    if where == machine() and process.isdecimal():
        return not is_running(int(process))
    return time.time() - partial.lstat().st_mtime > _ABANDONED


def _error(number: int, place: Path) -> OSError:
    return OSError(number, os.strerror(number), str(place))


def _partial() -> str:
    return f"{_PREFIX}{machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}{_SUFFIX}"


def _real(place: Path) -> Path:
    """Return what `place` is a link to, unless it leads to nothing: a loop of links, or a folder that is missing."""
    real = Path(os.path.realpath(place))
    if real.is_symlink():
        raise _error(errno.ELOOP, place)
    if place.is_symlink() and not real.parent.exists():
        raise _error(errno.ENOENT, real.parent)
    return real


def _beside(place: Path) -> Path:
    """Return a new path in the nearest folder above `place` that exists: no other is made before the end."""
    folder = next(folder for folder in place.parents if os.path.lexists(folder))
    for name in place.relative_to(folder).parts:
        with suppress(FileNotFoundError):  # a name that is too long is refused now, not at the end
            (folder / name).lstat()
    return folder / _partial()


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if not path.is_dir() or problem.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise  # some file systems do not flush folders
    finally:
        os.close(descriptor)


def _move(partial: Path, place: Path, *, replace: bool = False) -> None:
    made: list[Path] = []
    try:
        for folder in reversed(place.parents):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                made.append(folder)
        _rename(partial, place, replace=replace)
    except OSError:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise
    with suppress(OSError):  # it is there: whether the folder is flushed shows only when the power fails
        _flush(place.parent)


def _rename(partial: Path, place: Path, *, replace: bool) -> None:
    """Rename; with `replace` a folder that stands there goes aside first, or another process has put its own there."""
    try:
        os.replace(partial, place)
    except OSError:
        if not replace or not place.is_dir():
            raise
        aside = _beside(place)
        with suppress(OSError):
            os.rename(place, aside)
        try:
            os.rename(partial, place)
        except OSError:
            if not place.is_dir():
                os.rename(aside, place)
                raise
            _remove(partial)
        _remove(aside)


def _fill(place: Path, partial: Path, last: str) -> None:
    if not is_empty(place):
        raise _error(errno.ENOTEMPTY, place)
    moved: list[Path] = []
    try:
        for entry in sorted(partial.iterdir(), key=lambda entry: entry.name == last):
            moved.append(place / entry.name)
            os.rename(entry, moved[-1])
    except BaseException:
        for path in moved:
            _remove(path)
        raise
    partial.rmdir()
    with suppress(OSError):
        _flush(place)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
