"""Hashes of large files, remembered between runs by path, size and time of change."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from unmemorize.files.atomic import write_file
from unmemorize.files.places import cache_folder

_LARGE = 8 * 2**20
"""Bytes from which remembering a hash is faster than making it."""


def remembered_digest(files: Iterable[Path]) -> str:
    """Return the hash of the names and contents of `files`, as `digest_of` does.

    Cost: one read of each large file, the first time and after each change.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(os.fsencode(f"{file.name} {content_digest(file)}\n"))
    return digest.hexdigest()


def content_digest(file: Path) -> str:
    """Return the hash of a file's content."""
    status = file.stat()
    if status.st_size < _LARGE:
        return _read(file)
    path = str(file.resolve())
    memory = cache_folder() / "digests" / _hash(path)
    identity = [path, status.st_size, status.st_mtime_ns, status.st_ino]
    with suppress(OSError, ValueError):  # never seen, or damaged: it is made again
        digest, seal = memory.read_text(encoding="ascii").split()
        if seal == _hash(*identity, digest):
            return digest
    made = _read(file)
    with suppress(OSError):  # a cache that cannot be written costs time, not the run
        write_file(memory, f"{made} {_hash(*identity, made)}".encode())
    return made


@cache
def source_digest(module: str) -> str | None:
    """Return the hash of the Python files of the package or file that holds an imported module, as they are now.

    A second call in the same process says what the first one did: the code that is loaded. What has no file, a
    notebook say, has no hash.
    """
    top = sys.modules.get(module.partition(".")[0])
    file = getattr(top, "__file__", None)
    places = [Path(place) for place in getattr(top, "__path__", None) or ([file] if file else [])]
    found = [(place, path) for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))]
    sources = sorted((path.relative_to(place.parent).as_posix(), _read(path)) for place, path in found)
    return bytes_digest(repr(sources).encode()) if sources else None


def bytes_digest(content: bytes) -> str:
    """Return the hash of some bytes, as records carry it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _hash(*parts: object) -> str:
    return bytes_digest(repr(parts).encode())


def _read(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
