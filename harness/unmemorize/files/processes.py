"""Which processes of this machine are still there: what a dead one has left need not wait for a time to pass."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path


@functools.cache
def machine() -> str:
    """Return a word for this machine since its start, and in it for the container in which process ids are counted."""
    said = [socket.gethostname()]
    with suppress(OSError):
        said += [Path("/proc/sys/kernel/random/boot_id").read_text("ascii"), os.readlink("/proc/self/ns/pid")]
    return hashlib.blake2b("".join(said).encode("utf-8", "replace"), digest_size=6).hexdigest()


def started(process: int) -> float | None:
    """Return when a process of this machine was started, in seconds, or None if it is gone, or only not yet reaped."""
    import psutil

    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else float(found.create_time())
    except psutil.NoSuchProcess:
        return None


def is_running(process: int, since: float | None = None) -> bool:
    """Return whether a process of this machine is there; with `since`, whether it is the one started then."""
    found = started(process)
    return found is not None and (since is None or abs(found - since) < 1.0)
