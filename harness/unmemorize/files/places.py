"""Where a text, a tokenizer or a model lies: a path, or a path inside an installed package."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unmemorize.errors import DataError, UnwritableError
from unmemorize.files.atomic import check_place, is_empty
from unmemorize.files.error_reasons import reason_of, system_error

INSIDE = "package:"
"""What a place inside an installed package starts with: `package:IMPORT_NAME/path/in/it`."""
_SHOWN = 60
"""Characters of an impossible name that an error shows."""


def located(place: str, setting: str) -> Path:
    """Return the existing file or folder that `place` names, for the setting called `setting`.

    Raises:
        DataError: there is no such path, package, or path in the package, or it may not be read.
    """
    path = named(place, setting)
    if not path.exists():
        raise DataError(
            f"{setting} = {place!r}: there is no file or folder {path.name!r} in {path.parent}",
            expected=f"a path that exists; beside it are {_beside(path)}",
            fix=f"correct the path that {setting} names",
        )
    if not os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK):
        raise DataError(
            f"{setting} = {place!r} cannot be read: permission denied",
            expected="a file or folder that you may read",
            fix=f"check its permissions with `ls -ld {path}`",
        )
    return path


def named(place: str | Path, setting: str) -> Path:
    """Return the path that `place` names, whether or not anything is there, for the setting called `setting`.

    Raises:
        DataError: no such package is installed; or the system takes no such name: it is too long, or in the home of a
            user that does not exist.
    """
    name = str(place)
    try:
        path = _in_package(name, setting) if name.startswith(INSIDE) else Path(name).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{setting} = {name[:_SHOWN]!r} ({len(name)} characters): {reason_of(error)}",
            expected="a path that the system takes",
            fix=f"correct the path that {setting} names",
        ) from error
    return path


def check_new(folder: Path, fix: str) -> None:
    """Refuse a folder that holds something or cannot be made: better now than after an hour's work.

    Raises:
        DataError: it is not empty, or cannot be written.
    """
    place = check_writable(folder, fix)
    if place.exists() and not (place.is_dir() and is_empty(place)):
        raise DataError(f"{folder} exists already", expected="a new folder: nothing is overwritten", fix=fix)


def check_writable(place: Path, fix: str) -> Path:
    """See that a file or folder can be written, making none, and remove what killed processes left beside it.

    Raises:
        UnwritableError: it cannot.
    """
    path = named(place, "out")
    with writing(place, fix):
        check_place(path)
    return path


def check_room(place: Path, size: int, fix: str) -> None:
    """Refuse a place whose disk has less room than so many bytes.

    Raises:
        UnwritableError: it has.
    """
    absolute = place.absolute()
    free = shutil.disk_usage(next(path for path in (absolute, *absolute.parents) if path.exists())).free
    if free < size:
        raise UnwritableError(
            f"{place} has room for {free:,} bytes, and what is to be written has {size:,}",
            expected=_EXPECTED[errno.ENOSPC],
            fix=fix,
        )


@contextmanager
def writing(place: Path, fix: str) -> Iterator[None]:
    """Turn what the system says against writing `place` into an error in three parts.

    Raises:
        UnwritableError: the system said something.
    """
    try:
        yield
    except Exception as error:
        problem = system_error(error)
        if problem is None:
            raise
        raise UnwritableError(
            f"{place} cannot be written: {reason_of(problem)}",
            expected=_EXPECTED.get(problem.errno or 0, "a place where you may write"),
            fix=fix,
        ) from error


_EXPECTED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "a place with room: `df -h` shows how much is free"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "more files that may be open at once: `ulimit -n 4096`"),
}


def _in_package(place: str, setting: str) -> Path:
    name, _, inner = place.removeprefix(INSIDE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{setting} = {place!r}: no package {name!r} is installed here",
            expected=f"{INSIDE}IMPORT_NAME/path, with an importable package",
            fix=f"pip install {name.replace('_', '-') or 'PACKAGE'}",
        )
    return Path(next(iter(spec.submodule_search_locations))) / inner


def _beside(path: Path) -> str:
    names = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
    return ", ".join(names[:8]) or "no files"


def digest_of(files: Iterable[Path]) -> str:
    """Return a hash of the names and contents of `files`."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "blake2b").hexdigest()
        digest.update(os.fsencode(f"{file.name} {content}\n"))
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return what outlives a run: UNMEMORIZE_CACHE, the user's cache folder, or without a home a temporary one."""
    from platformdirs import user_cache_path

    if chosen := os.environ.get("UNMEMORIZE_CACHE"):
        return Path(chosen)
    with suppress(RuntimeError):
        place = user_cache_path("unmemorize")
        if place.is_absolute():  # or nobody knows what `~` is
            return place
    return _cache_of_nobody()


def _cache_of_nobody() -> Path:
    """Return the folder of a user whom the system does not know, as in a bare container; nobody else can write it."""
    user = os.getuid() if os.name != "nt" else 0
    with writing(Path("a temporary folder for the cache"), "set UNMEMORIZE_CACHE to a folder that you may write"):
        folder = Path(tempfile.gettempdir()) / f"unmemorize-{user}"
    with suppress(OSError):  # who writes there says what is wrong
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if (found.st_uid, found.st_mode & 0o022, folder.is_symlink()) != (user, 0, False):
            return Path(tempfile.mkdtemp(prefix=f"unmemorize-{user}-"))
    return folder
