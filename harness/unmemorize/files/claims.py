"""Claims on pieces of work that several processes, also of several machines, share through a folder: no locks."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from unmemorize.files.processes import is_running, machine, started

STALE_AFTER: Final = 60.0
"""Seconds without a heartbeat after which the holder of a claim counts as dead."""
_BEATS: Final = 6
"""Heartbeats in that time."""


class Claim:
    """A claim that this process holds: until it is released, or its holder dies, nobody else can take it.

    A claim is a file that only one process can have created (`O_EXCL`), kept fresh by touching it. A dead holder's
    file is never touched or removed by who takes the claim over, since two that do so at once could remove each
    other's: its successor is a file beside it, named after what it follows, which again only one process can create.
    Ages are differences of two times of change on the same file system, so that clocks of machines do not matter.
    """

    def __init__(self, path: Path, file: _File, stale_after: float) -> None:
        self.path = path
        self._file, self._released = file, threading.Event()
        self._heart = threading.Thread(target=self._beat, args=(stale_after / _BEATS,), daemon=True)
        self._heart.start()

    @classmethod
    def take(cls, path: Path, stale_after: float = STALE_AFTER) -> Claim | None:
        """Return the claim on what `path` stands for, or None while somebody else holds it.

        Args:
            path: a file that need not exist; its folder is made.
            stale_after: seconds without a heartbeat after which a claim may be taken over; the same for all who ask.

        Raises:
            OSError: its folder cannot be made, read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return cls._take(path, stale_after)
        except FileNotFoundError:  # somebody has removed the folder, which was empty, at that moment
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls._take(path, stale_after)

    @classmethod
    def _take(cls, path: Path, stale_after: float) -> Claim | None:
        before = _chain(path)
        if before and not _stale(before[-1], stale_after):
            return None
        me = os.getpid()
        about = {"token": secrets.token_hex(8), "host": platform.node(), "machine": machine(), "process": me}
        about["started"] = started(me)
        file = _File(_next(path, before), json.dumps(about).encode())
        if not _created(file):
            return None
        if _chain(path) != [*before, file]:  # what it was to follow has been released
            file.place.unlink(missing_ok=True)
            return None
        return cls(path, file, stale_after)

    @property
    def held(self) -> bool:
        """Whether it is still held: who sleeps for longer than `stale_after` seconds may lose it."""
        return not self._released.is_set() and _chain(self.path)[-1:] == [self._file]

    def release(self) -> None:
        """Let others take it; a second time does nothing."""
        with suppress(OSError):  # what cannot be removed goes stale
            # From the oldest on: a process about to follow one of them finds the chain broken and gives up.
            for file in _chain(self.path) if self.held else ():
                file.place.unlink(missing_ok=True)
        self._released.set()
        self._heart.join(timeout=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self, seconds: float) -> None:
        while not self._released.wait(seconds):
            with suppress(OSError):  # a file server that is away for a moment, or a folder that was removed
                os.utime(self._file.place)


def is_alive(path: Path, stale_after: float = STALE_AFTER) -> bool:
    """Return whether somebody holds the claim on `path`, with a heartbeat in the last `stale_after` seconds."""
    chain = _chain(path)
    return bool(chain) and not _stale(chain[-1], stale_after)


def holder(path: Path) -> str:
    """Return in words who holds the claim on `path`: `process 123`, and of another machine its host; or nothing."""
    about = _about(_chain(path)[-1:])
    elsewhere = "" if about.get("machine") == machine() else f" on {about.get('host')}"
    return f"process {about['process']}{elsewhere}" if "process" in about else ""


class _File(NamedTuple):
    place: Path
    content: bytes


def _chain(path: Path) -> list[_File]:
    """Return the files of a claim, each but the first the successor of the one before it; the last one counts."""
    chain: list[_File] = []
    while True:
        place = _next(path, chain)
        try:
            chain.append(_File(place, place.read_bytes()))
        except FileNotFoundError:
            return chain


def _next(path: Path, chain: list[_File]) -> Path:
    if not chain:
        return path
    place, content = chain[-1]
    followed = hashlib.blake2b(place.name.encode() + content, digest_size=8)
    return path.with_name(f"{path.name}-{followed.hexdigest()}")


def _created(file: _File) -> bool:
    try:
        with file.place.open("xb") as stream:
            stream.write(file.content)
    except FileExistsError:
        return False
    except OSError:  # a full disk: a claim without its token is nobody's
        file.place.unlink(missing_ok=True)
        raise
    return True


def _about(chain: list[_File]) -> dict[str, Any]:
    """Return what the last of some files says of its holder; nothing, where it is damaged or was never finished."""
    with suppress(ValueError, IndexError):
        about = json.loads(chain[-1].content)
        return about if isinstance(about, dict) else {}
    return {}


def _is_gone(about: dict[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is no longer there."""
    process, since = about.get("process"), about.get("started")
    if about.get("machine") != machine() or not isinstance(process, int) or not isinstance(since, float):
        return False
    return not is_running(process, since)


def _stale(file: _File, seconds: float) -> bool:
    """Return whether a claim's holder is gone, or its file older than so many seconds, by its file system's clock."""
    if _is_gone(_about([file])):
        return True
    place = file.place
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".clock-") as clock:
        os.utime(clock.name)
        now = os.stat(clock.name).st_mtime
    try:
        with place.open("rb") as stream:  # opening asks a file server afresh, where `stat` may answer from memory
            return now - os.fstat(stream.fileno()).st_mtime > seconds
    except FileNotFoundError:
        return True
