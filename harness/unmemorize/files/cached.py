"""What takes long to make is made once and kept: a cache of folders that say what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from unmemorize.errors import CacheWarning
from unmemorize.files.atomic import atomic_folder, sweep, temporary_folder
from unmemorize.files.claims import Claim, holder, is_alive
from unmemorize.files.error_reasons import reason_of, system_error
from unmemorize.files.privacy import public

if TYPE_CHECKING:
    from unmemorize.contracts.context import Context

T = TypeVar("T")

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_FORGOTTEN: Final = 30 * 86_400.0
"""Seconds after which nobody is expected to go on with what a killed process had begun."""
_POLLS: Final = (0.05, 1.0)
"""Seconds between two looks at another process's work: at first, and at most."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_ELSEWHERE: Final = "set UNMEMORIZE_CACHE to another folder"


class CacheEntry:
    """One thing in the cache: a folder of files, complete or absent, that is used only as what it was made as.

    The folder is `CACHE/KIND/KEY`, and its manifest holds the identity and a digest of each file. An entry of another
    identity or version, and one of which a bit is other than it was, is refused with a `CacheWarning` and made again.
    However many processes need it, one makes it and the others wait; where that one dies, another goes on. Without a
    cache that can be written the work is done all the same, and not kept.

    Args:
        context: says where the cache is, and where progress is shown.
        kind: the folder of the cache that holds entries of this kind, e.g. `testbeds`.
        identity: everything that decides what is made, JSON-ready; a number to raise when the code that makes it
            changes is part of it. What it names by a path should be in it by digest as well.
    """

    def __init__(self, context: Context, kind: str, identity: Mapping[str, Any]) -> None:
        self._context, self._identity = context, identity
        text = json.dumps([kind, identity], sort_keys=True)
        self._key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._folder = (context.cache or Path()) / kind / self._key

    def exists(self) -> bool:
        """Return whether the cache has it, by its manifest: files are compared when it is read."""
        if self._context.cache is None:
            return False
        try:
            self._manifest()
        except _NoEntryError:
            return False
        return True

    def get(
        self, *, make: Callable[[Path | None], T], save: Callable[[T, Path], object], load: Callable[[Path], T]
    ) -> T:
        """Return the thing, from the cache or made now.

        Args:
            make: makes it. It is given a folder that outlives the process, for a `Checkpoint` or whatever else work
                can go on from, or None where there is no such place.
            save: writes it into an empty folder, whose path is given second.
            load: returns what `save` wrote into a folder, unchanged since.
        """
        return self._get(make, save, load, reload=False)

    @contextmanager
    def folder(self, fill: Callable[[Path, Path | None], object]) -> Iterator[Path]:
        """Give a folder that has been filled, now or before: the cache's own, or a temporary one.

        Args:
            fill: writes into the empty folder given first; the second one, or None, is what `make` of `get` is given.
        """
        with ExitStack() as stack:
            yield self._get(
                lambda unfinished: self._filled(fill, unfinished, stack), _copy, lambda kept: kept, reload=True
            )

    def _filled(self, fill: Callable[[Path, Path | None], object], unfinished: Path | None, stack: ExitStack) -> Path:
        if unfinished is not None:
            place = unfinished / "filled"
            shutil.rmtree(place, ignore_errors=True)
            try:
                place.mkdir()
                fill(place, unfinished)
                return place
            except Exception as error:
                shutil.rmtree(place, ignore_errors=True)
                if not _is_of_the_disk(error):
                    raise
                self._warn(f"could not be written ({reason_of(error)}): a temporary folder is used; {_ELSEWHERE}")
        place = stack.enter_context(temporary_folder())
        fill(place, None)
        return place

    def _get(
        self,
        make: Callable[[Path | None], T],
        save: Callable[[T, Path], object],
        load: Callable[[Path], T],
        *,
        reload: bool,
    ) -> T:
        if self._context.cache is None:
            return make(None)
        while True:
            with suppress(_NoEntryError):
                return self._read(load)
            try:
                claim = Claim.take(self._claim)
                if claim is None:
                    self._wait()
                    continue
            except OSError as error:
                self._warn(f"cannot be written ({reason_of(error)}): what is made now is not kept; {_ELSEWHERE}")
                return make(None)
            with claim:
                return self._make_unless_made(make, save, load, reload=reload)

    @property
    def _claim(self) -> Path:
        return self._folder.with_suffix(".claim")

    @property
    def _unfinished(self) -> Path:
        return self._folder.with_suffix(".unfinished")

    def _read(self, load: Callable[[Path], T]) -> T:
        """Raises `_NoEntryError` where the entry is absent, or not what it should be."""
        files = self._manifest()
        found = _digests(self._folder)
        wrong = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
        if wrong:
            raise _NoEntryError(f"{wrong[0]} is not as it was written")
        try:
            return load(self._folder)
        except Exception as error:  # written by an older release of the code that reads it
            raise _NoEntryError(f"it cannot be read: {reason_of(error)}") from error

    def _manifest(self) -> dict[str, str]:
        """Return the digests of the files; raises `_NoEntryError`."""
        if not os.path.lexists(self._folder):
            raise _NoEntryError
        try:
            manifest = json.loads((self._folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _NoEntryError(f"{MANIFEST} cannot be read: {reason_of(error)}") from error
        if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
            raise _NoEntryError(f"{MANIFEST} is not of version {_FORMAT}")
        if manifest.get("key") != self._key or not isinstance(manifest.get("files"), dict):
            raise _NoEntryError("it holds something else")
        return dict(manifest["files"])

    def _make_unless_made(
        self,
        make: Callable[[Path | None], T],
        save: Callable[[T, Path], object],
        load: Callable[[Path], T],
        *,
        reload: bool,
    ) -> T:
        try:
            return self._read(load)  # another process has made it since we looked
        except _NoEntryError as missing:
            if str(missing):
                self._warn(f"is not used, and made again: {missing}")
        sweep(self._folder.parent)
        _sweep_forgotten(self._folder.parent)
        made = self._made(make)
        try:
            self._keep(made, save)
        except Exception as error:  # a full disk, as each library says it: what is made is there all the same
            self._warn(f"could not be written ({reason_of(error)}): what was made is used, and not kept; {_ELSEWHERE}")
            return made
        shutil.rmtree(self._unfinished, ignore_errors=True)
        return load(self._folder) if reload else made

    def _made(self, make: Callable[[Path | None], T]) -> T:
        unfinished = self._unfinished
        try:
            unfinished.mkdir(exist_ok=True)
        except OSError as error:
            self._warn(f"has no room for checkpoints ({reason_of(error)}); {_ELSEWHERE}")
            return make(None)
        try:
            return make(unfinished)
        finally:
            with suppress(OSError):  # unless something to go on from is in it
                unfinished.rmdir()

    def _keep(self, made: T, save: Callable[[T, Path], object]) -> None:
        if self._folder.is_symlink() or self._folder.is_file():
            self._folder.unlink()
        with atomic_folder(self._folder, replace=True) as partial:
            save(made, partial)
            about = {"identity": public(self._identity), "files": _digests(partial)}
            manifest = {"format": _FORMAT, "key": self._key, **about}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def _wait(self) -> None:
        """Wait while another process makes it, in view of the user."""
        pause, waited = _POLLS[0], 0.0
        who, what = holder(self._claim) or "another process", self._folder.parent.name
        with self._context.progress.task(f"waiting for {who}, which makes the same ({what}; seconds)", None) as advance:
            while is_alive(self._claim):
                self._context.check_deadline("waiting for another process")
                time.sleep(pause)
                waited, before = waited + pause, waited
                advance(int(waited) - int(before))
                pause = min(1.5 * pause, _POLLS[1])

    def _warn(self, what: str) -> None:
        warnings.warn(f"the cache entry {self._folder} {what}", CacheWarning, stacklevel=2)


class _NoEntryError(Exception):
    """There is no such entry, or, for the reason it gives, none that can be used."""


def _copy(made: Path, folder: Path) -> None:
    """Copy what a folder holds; on one disk as further names of the same files."""
    shutil.copytree(made, folder, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is of a place that takes no more."""
    while error is not None:
        problem = system_error(error)
        if problem is not None and problem.errno in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file in a folder but the manifest; hidden files are not ours."""
    digests = {}
    try:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name != MANIFEST and not path.name.startswith("."):
                with path.open("rb") as stream:
                    digests[name] = hashlib.file_digest(stream, "blake2b").hexdigest()
    except OSError as error:
        raise _NoEntryError(f"it cannot be read: {reason_of(error)}") from error
    return digests


def _sweep_forgotten(folder: Path) -> None:
    """Remove what killed processes had begun long ago, and nobody went on with."""
    for unfinished in folder.glob("*.unfinished"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (unfinished, *unfinished.rglob("*")))
            if time.time() - newest > _FORGOTTEN and not is_alive(unfinished.with_suffix(".claim")):
                shutil.rmtree(unfinished)
                for claim in folder.glob(f"{unfinished.stem}.claim*"):
                    claim.unlink()
