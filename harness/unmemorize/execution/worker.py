"""The process in which plugins run: it takes cells and tells, in plain JSON, what comes of them."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import psutil
import torch

from unmemorize.errors import CacheWarning
from unmemorize.execution.cells import Cells
from unmemorize.execution.events import Ended
from unmemorize.execution.failures import Failure
from unmemorize.execution.plan import Cell
from unmemorize.execution.portable import PortablePlugins
from unmemorize.execution.recording import failed
from unmemorize.execution.runtime import Runtime
from unmemorize.results.record import Record

IDLE_SECONDS = 60.0
"""Seconds without an order after which a worker process ends itself."""
_PROGRESS_SECONDS = 0.1
"""How often progress is told."""
_PR_SET_PDEATHSIG = 1
_ANNOUNCEMENTS = frozenset({"SIGTERM", "SIGHUP", "SIGCONT", "SIGUSR2"})
"""What a scheduler sends to every process of a job that is preempted or at its walltime: no cell is to blame for it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker process takes over from the process that started it."""

    folder: str
    path: tuple[str, ...]
    environment: Mapping[str, str]
    threads: int | None
    """Threads to compute on; as many as torch takes where it is None."""
    verbose: bool = False
    """Whether it is shown what libraries log."""

    def enter(self) -> None:
        """Take them over here."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        with suppress(OSError):  # a folder that is not there, on another machine
            os.chdir(self.folder)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.verbose:
            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


class Setup(NamedTuple):
    """What a worker process needs for the cells of one run."""

    plugins: PortablePlugins
    runtime: Runtime


class Order(NamedTuple):
    """A cell that a worker process is to run."""

    cell: Cell
    base: Record | None


def work(orders: Connection, output: Connection) -> None:
    """Work until nobody sends orders any more: the target of a worker process.

    Args:
        orders: first the surroundings, then one order after the other, both pickled; what is told goes back there.
        output: the pipe that takes what is printed here.
    """
    _detach(output)
    pickle.loads(orders.recv_bytes()).enter()  # noqa: S301 - from the process that started this one
    _Worker(orders).work()


def _detach(output: Connection) -> None:
    """Be a process group of one's own that a Ctrl-C does not reach, prints into a pipe, and dies with its parent."""
    if hasattr(os, "setsid"):
        os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in _ANNOUNCEMENTS & set(dir(signal)):
        signal.signal(getattr(signal, name), lambda *_: None)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, errors="backslashreplace") for stream in (1, 2))  # noqa: SIM115
    faulthandler.enable(file=2)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, file=2)
    multiprocessing.current_process().daemon = False  # plugins may start processes of their own


class _Worker:
    """Runs orders, and tells of each cell when it starts, acts and ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._process = connection, os.getpid()
        self._telling = threading.Lock()
        self._orders: queue.Queue[bytes] = queue.Queue()
        self._cells: Cells | None = None

    def work(self) -> None:
        self._show_warning: Callable[..., None] = warnings.showwarning
        warnings.showwarning = self._warned  # type: ignore[assignment]
        threading.Thread(target=self._receive, daemon=True, name="orders").start()
        self._threads = set(threading.enumerate())
        with suppress(queue.Empty):
            while True:
                self._obey(pickle.loads(self._orders.get(timeout=IDLE_SECONDS)))  # noqa: S301 - as above

    def _receive(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._orders.put(self._connection.recv_bytes())
        _end_group()

    def _obey(self, message: Setup | Order) -> None:
        if isinstance(message, Setup):
            self._setup, self._cells = message, None
            return
        try:
            if self._cells is None:
                self._cells = self._prepared()
        except BaseException as error:  # plugins that cannot be loaded here, whatever they raise
            self.ended(message.cell, Ended(failed(message.cell, Failure.of(error), {}), how="unloaded"))
        else:
            self._cells.run(message.cell, message.base)
        self.tell("idle")

    def _prepared(self) -> Cells:
        runtime = replace(self._setup.runtime, progress=_ForwardedProgress(self.tell))
        if runtime.memory is not None and runtime.device.startswith("cuda"):
            whole = torch.cuda.get_device_properties(runtime.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, runtime.memory / whole), runtime.device)
        return Cells(self._setup.plugins.load(), runtime, self)

    def _warned(self, message: Warning | str, category: type[Warning], *where: Any) -> None:
        """Tell of what is wrong with the cache; the warnings of others are output like any other."""
        if issubclass(category, CacheWarning):
            self.tell("warned", text=str(message))
        else:
            self._show_warning(message, category, *where)

    def started(self, cell: Cell) -> None:
        """Tell that a cell comes next."""
        self.tell("started")

    def acting(self, cell: Cell) -> None:
        """Tell that the time of a cell runs."""
        self.tell("acting")

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Tell what came of a cell."""
        spoiled = ended.spoiled or self._worn()
        record = ended.record.model_dump()
        self.tell("ended", record=record, rows=ended.rows, how=ended.how, spoiled=spoiled)

    def _worn(self) -> bool:
        """Whether a cell left something in this process that goes on, or ended what others need."""
        return (
            not {thread for thread in threading.enumerate() if thread.is_alive()} <= self._threads
            or _has_children()
            or sys.stdout.closed
            or sys.stderr.closed
        )

    def tell(self, kind: str, **content: Any) -> None:
        """Send one message; a copy of this process that a plugin has forked ends here instead."""
        if os.getpid() != self._process:
            os._exit(0)
        message = json.dumps({"kind": kind, **content}, default=str).encode()
        with self._telling:
            self._connection.send_bytes(message)


class _ForwardedProgress:
    """Progress that is shown by the process that started this one."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell, self._works = tell, 0

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Tell of work that takes its time: now and then, and once when it ends."""
        self._works += 1
        about = {"work": self._works, "description": str(description), "total": total}
        done, last, told = 0, time.monotonic(), False

        def advance(steps: int) -> None:
            nonlocal done, last, told
            done += steps
            if time.monotonic() - last > _PROGRESS_SECONDS:
                last, told = time.monotonic(), True
                self._tell("steps", **about, done=done)

        try:
            yield advance
        finally:
            if told:
                self._tell("steps", **about, done=done, ended=True)


def _has_children() -> bool:
    if not hasattr(os, "waitid"):
        return bool(psutil.Process().children())
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _end_group() -> None:
    """End this process and all that it has started."""
    if hasattr(os, "killpg"):
        with suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(1)
