"""Where a text, a tokenizer or a model lies: a path, or a path inside an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from unmemorize.errors import DataError

INSIDE = "package:"
"""What a place inside an installed package starts with: `package:IMPORT_NAME/path/in/it`."""


def located(place: str, setting: str) -> Path:
    """Return the existing file or folder that `place` names, for the setting called `setting`.

    Raises:
        DataError: there is no such path, package, or path in the package, or it may not be read.
    """
    path = _in_package(place, setting) if place.startswith(INSIDE) else Path(place).expanduser()
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
        digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return what outlives a run: UNMEMORIZE_CACHE, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("UNMEMORIZE_CACHE") or user_cache_path("unmemorize"))
