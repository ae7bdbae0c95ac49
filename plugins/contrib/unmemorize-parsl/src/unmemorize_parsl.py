"""Cells run by Parsl (Babuji et al. 2019, arXiv 1905.02158): SLURM, PBS, LSF, Kubernetes, or processes of this machine.

What a cluster needs (queue, account, nodes, modules to load) is said to Parsl, in a file of its own that defines
`config`. This package hands that file to Parsl, and chunks of cells to the workers that Parsl starts.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakSet

from pydantic import Field, FilePath

from unmemorize import ConfigError, ExecutorFactory, StrictConfig, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    import parsl

MOST = 1000
"""Chunks at once that a run is planned for, where a config sets no limit."""

LAUNCHING_SECONDS = 10.0
"""How long the launching of tasks is awaited at the end; it takes milliseconds."""

INTERCHANGE = """
import os, runpy, shutil, threading, time

def end_with(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
runpy.run_path(shutil.which("interchange.py"), run_name="__main__")
"""
"""Parsl's own program between a run and its nodes; left alone, it outlives a killed run and keeps the nodes."""


class ParslConfig(StrictConfig):
    """A config file of Parsl's, or else processes of this machine."""

    config: FilePath | None = None
    """A Python file that defines `config`, a `parsl.Config`. It is executed: name only files that you trust."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Chunks of cells at once: as many as the config allows at most, or 2 where there is none."""


class Parsl(ExecutorFactory):
    """Run chunks of cells on the workers of a Parsl config."""

    name = "parsl"
    elsewhere = True
    Config = ParslConfig

    @property
    def workers(self) -> int:
        """How many chunks run at once when all blocks of the config have started."""
        return self.config.workers or min(sum(map(_slots, self._parsl.executors)), MOST)

    def create(self) -> Executor:
        """Start Parsl; the pool ends it."""
        config = self._parsl
        del self._parsl  # Parsl starts the executors of a config once
        with ExitStack() as stack:
            if self.config.config is None:
                config.run_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="unmemorize-parsl-"))
            stack.enter_context(_programs_on_path())
            return Pool(config, stack)

    @cached_property
    def _parsl(self) -> parsl.Config:
        if self.config.config is None:
            return _this_machine(self.config.workers or 2)
        import parsl

        path = self.config.config
        expected = "a Python file that defines `config`, a parsl.Config"
        try:
            config = runpy.run_path(str(path)).get("config")
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{path} cannot be executed: {type(error).__name__}: {error}",
                expected=expected,
                fix=f"correct the file until `python {path}` runs",
            ) from error
        if not isinstance(config, parsl.Config):
            raise ConfigError(
                f"{path} defines no `config`" if config is None else f"`config` in {path} is a {type(config).__name__}",
                expected=expected,
                fix=f"write in {path}: config = parsl.Config(executors=[...])",
            )
        return config


def _this_machine(workers: int) -> parsl.Config:
    """Return the config of `workers` processes here, which Parsl starts anew where one is lost."""
    import parsl
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="this_machine",
        address="127.0.0.1",  # Parsl asks the internet for other addresses of this machine
        max_workers_per_node=workers,
        cores_per_worker=1e-6,  # `workers` alone says how many
        heartbeat_period=5,
        heartbeat_threshold=30,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    return parsl.Config(executors=[executor], strategy_period=0.5, initialize_logging=False)


def _slots(executor: Any) -> int:
    provider = getattr(executor, "provider", None)
    if provider is None:
        return getattr(executor, "max_threads", None) or 1
    nodes = min(provider.max_blocks, MOST) * getattr(provider, "nodes_per_block", 1)
    return int(nodes * executor.workers_per_node)


class Pool(Executor):
    """`parsl.concurrent.ParslPoolExecutor`, but it can be shut down while tasks run, and several may follow each other.

    Parsl cannot cancel a task; shut down without waiting, it ends the workers instead.
    """

    def __init__(self, config: parsl.Config, stack: ExitStack) -> None:
        """Start Parsl; leave what `stack` holds when it has ended."""
        from parsl.concurrent import ParslPoolExecutor
        from parsl.dataflow.dflow import DataFlowKernel

        for executor in config.executors:
            if getattr(executor, "interchange_launch_cmd", None) == ["interchange.py"]:  # Parsl's default
                vars(executor)["interchange_launch_cmd"] = [sys.executable, "-c", INTERCHANGE]
        with _interrupts_blocked():
            self._kernel = DataFlowKernel(config)
        self._pool, self._stack = ParslPoolExecutor(dfk=self._kernel), stack.pop_all()
        self._futures = WeakSet[Any]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on a worker."""
        future: Future[Any] = self._pool.submit(fn, *args, **kwargs)
        self._futures.add(future)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  as in Executor
        """End Parsl and its workers: when all tasks have ended, or at once with `cancel_futures` or without `wait`."""
        if self._kernel.cleanup_called:
            return
        if wait and not cancel_futures:
            self._kernel.wait_for_current_tasks()
        end = time.monotonic() + LAUNCHING_SECONDS
        while any(future.task_status() == "pending" for future in self._futures) and time.monotonic() < end:
            time.sleep(0.01)  # a socket on which a task is being sent must not be closed: ZeroMQ aborts the process
        self._kernel.cleanup()
        self._stack.close()


@contextmanager
def _programs_on_path() -> Iterator[None]:
    """Let Parsl find `interchange.py` and `process_worker_pool.py`, also where this environment is not activated."""
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that a Ctrl-C in the terminal does not reach: the run hears it, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@hookimpl
def register_executors() -> list[type[ExecutorFactory]]:
    """Return the executor of this package."""
    return [Parsl]
