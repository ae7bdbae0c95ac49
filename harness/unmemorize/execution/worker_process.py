"""A worker process, seen from outside: started, given orders, watched, ended."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any

import psutil

from unmemorize.execution.worker import Surroundings, work

_LOG = logging.getLogger("unmemorize.worker")
_KEPT_OUTPUT = 16_384
"""Bytes of output that are kept."""
_AT_ONCE = 65_536
_STACK_SECONDS = 0.5
"""How long a process that is to be ended may take to write where it was."""
_STARTING = threading.Lock()
_PRELOADED = (
    "unmemorize.execution.worker",
    "torch._dynamo",
    "transformers.generation.utils",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
)
"""What every worker process imports sooner or later; one that starts as a fork has it already."""


class WorkerProcess:
    """A worker process.

    Args:
        device: what it computes on.
        environment: variables that it has beside those of this process.
        threads: threads that it computes on.
        early: modules that are imported before it starts, where that saves time.
    """

    def __init__(
        self, device: str, environment: Mapping[str, str], threads: int | None, early: Sequence[str] = ()
    ) -> None:
        self.device, self.environment, self.threads = device, dict(environment), threads
        context: Any = multiprocessing.get_context("forkserver" if _forks(device) else "spawn")
        self._connection, theirs = context.Pipe()
        self._output, written = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(theirs, written), daemon=True, name="unmemorize-worker")
        self._tail = b""
        self.run = ""
        """The run for which it has been set up."""
        with _starting():
            if context.get_start_method() == "forkserver":
                context.set_forkserver_preload([*_PRELOADED, *early])
            self._process.start()
        # At the end of this process, multiprocessing asks its children to end, which these do not hear, and waits.
        Finalize(self, self._process.kill, exitpriority=1)
        theirs.close()
        written.close()
        variables = {**os.environ, **self.environment}
        self.send(Surroundings(os.getcwd(), tuple(sys.path), variables, threads, _LOG.isEnabledFor(logging.INFO)))

    def send(self, order: object) -> None:
        """Send an order; a process that has ended takes none, which is seen when it is listened to."""
        with suppress(OSError):
            self._connection.send_bytes(pickle.dumps(order))

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """Return the next message, or None if there is none for some seconds, or never again."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            sources: list[Any] = [self._connection, self._process.sentinel]
            ready = wait([*sources, self._output] if not self._output.closed else sources, left)
            if self._output in ready:
                self._read_output()
            if self._connection in ready:
                try:
                    message: dict[str, Any] = json.loads(self._connection.recv_bytes())
                    return message
                except (EOFError, OSError, ValueError):  # it has ended, perhaps in the middle of a message
                    self._process.join(left)
                    return None
            if self._process.sentinel in ready:
                return None
        return None

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def ending(self) -> str:
        """Return in words how it ended."""
        self._process.join(1.0)
        code = self._process.exitcode
        if code is None:
            return "closed its connection"
        with suppress(ValueError):
            if code < 0:
                return f"was ended by the signal {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def forget_output(self) -> None:
        """Forget what it has printed so far."""
        self._read_output()
        self._tail = b""

    def output(self) -> str:
        """Return the end of what it has printed."""
        self._read_output()
        return self._tail.decode("utf-8", "replace")

    def stack(self) -> str:
        """Return what it has printed, and after it where it is now."""
        if hasattr(signal, "SIGUSR1") and self.is_alive:
            with suppress(OSError):
                os.kill(self._pid, signal.SIGUSR1)
            until = time.monotonic() + _STACK_SECONDS
            while time.monotonic() < until and wait([self._output], 0.1):
                self._read_output()
        return self.output()

    def memory(self) -> int:
        """Return the bytes of main memory that it and the processes that it started hold."""
        return sum(_resident(process) for process in self._family())

    def kill(self) -> None:
        """End it and whatever it has started."""
        family = self._family()
        with suppress(OSError):
            os.killpg(self._pid, signal.SIGKILL)
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        with suppress(ValueError):  # it is closed already
            self._process.join(5.0)
        self._connection.close()
        self._output.close()

    def __del__(self) -> None:
        started = hasattr(self, "_tail") and self._process.pid is not None
        if started and not self._connection.closed:
            self.kill()

    @property
    def _pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            process = psutil.Process(self._pid)
            return [process, *process.children(recursive=True)]
        return []

    def _read_output(self) -> None:
        while not self._output.closed and self._output.poll():
            read = os.read(self._output.fileno(), _AT_ONCE)
            if _LOG.isEnabledFor(logging.INFO):
                _LOG.info("%s", read.decode("utf-8", "replace").rstrip())
            self._tail = (self._tail + read)[-_KEPT_OUTPUT:]
            if not read:
                self._output.close()


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


_READ_EARLY = ("CUDA_", "HF_", "HUGGINGFACE_", "PYTORCH_", "TRANSFORMERS_")
"""What variables start with that libraries read while they are imported."""


def _forks(device: str) -> bool:
    """Return whether a process may be the fork of one that has imported everything, which starts at once.

    An accelerator's libraries do not survive a fork; and what was imported under other variables has read those.
    """
    return sys.platform == "linux" and device == "cpu" and _read_early() == dict(_first_environment())


@lru_cache(maxsize=1)
def _first_environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that libraries read early, as they were when the first process was started."""
    return tuple(_read_early().items())


def _read_early() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_EARLY)}


@contextmanager
def _starting() -> Iterator[None]:
    """Start a process in which the program of the user does not run again, from whatever process this is.

    `multiprocessing` runs `__main__` once more in a new process, so that its functions are found there; ours are not
    in it. It lets no daemon start processes, since nobody would wait for them; ours end by themselves.
    """
    process = multiprocessing.current_process()
    with _STARTING:
        main, daemon = sys.modules["__main__"], process.daemon
        sys.modules["__main__"] = ModuleType("__main__")
        if daemon:
            process.daemon = False
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if daemon:
                process.daemon = True
