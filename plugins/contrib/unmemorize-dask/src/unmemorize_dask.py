"""Cells run by Dask (Rocklin 2015): by a cluster that is there already, or by worker processes of this machine."""

from __future__ import annotations

import importlib.util
import logging
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, FilePath

from unmemorize import ConfigError, ExecutorFactory, StrictConfig, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client


class DaskConfig(StrictConfig):
    """Where the scheduler is; a cluster of this machine, if nowhere."""

    address: str | None = None
    """Address of a running scheduler: `tcp://node7:8786`."""
    scheduler_file: FilePath | None = None
    """The file that `dask scheduler --scheduler-file` wrote, in place of an address."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Chunks of cells at once: by default the threads that the cluster has when a run starts, or 2 on this machine."""
    wait: Annotated[float, Field(gt=0)] = 30.0
    """Seconds within which the scheduler has to answer."""


class Dask(ExecutorFactory):
    """Run chunks of cells on the workers of a Dask cluster."""

    name = "dask"
    elsewhere = True
    Config = DaskConfig

    @property
    def workers(self) -> int:
        """How many chunks run at once."""
        if self.config.workers is not None or self._is_local:
            return self.config.workers or 2
        with self._client() as client:
            return max(1, sum(client.nthreads().values()))  # none yet, where a cluster grows with what is asked of it

    def create(self) -> Executor:
        """Connect to the cluster, or start one; the pool closes what was opened."""
        with ExitStack() as stack:
            client = stack.enter_context(_this_machine(self.workers, stack) if self._is_local else self._client())
            _check_installed(client)
            return Pool(client, stack.pop_all())

    @property
    def _is_local(self) -> bool:
        return self.config.address is None and self.config.scheduler_file is None

    def _client(self) -> Client:
        from distributed import Client

        where = self.config.address or str(self.config.scheduler_file)
        try:
            if self.config.scheduler_file is not None:
                return Client(scheduler_file=where, timeout=self.config.wait, set_as_default=False)
            return Client(where, timeout=self.config.wait, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler answers at {where}: {error}",
                expected="the address that `dask scheduler` prints when it starts, within reach of this machine",
                fix="start one with `dask scheduler`, or leave the address out to use this machine",
            ) from error


def _this_machine(workers: int, stack: ExitStack) -> Client:
    from distributed import Client, LocalCluster

    with _interrupts_blocked():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,  # `--memory` is what limits cells
            dashboard_address=None,
            silence_logs=logging.ERROR,  # what became of a worker stands in the records
        )
    return Client(stack.enter_context(cluster), set_as_default=False)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that a Ctrl-C in the terminal does not reach: the run hears it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_installed(client: Client) -> None:
    """Refuse workers without this package: Dask waits for ever for a call that none of its workers can unpickle."""
    without = [worker for worker, found in client.run(importlib.util.find_spec, __name__).items() if found is None]
    if without:
        raise ConfigError(
            f"Dask's worker at {without[0]} has no package {__name__}",
            expected="the same environment on every machine of the cluster",
            fix=f"install {__name__.replace('_', '-')} where `dask worker` runs, and start the workers again",
        )


class Pool(Executor):
    """`distributed.cfexecutor.ClientExecutor`, which closes its client, and with it the cluster of this machine."""

    def __init__(self, client: Client, stack: ExitStack) -> None:
        """Submit to `client`; leave `stack` at the end."""
        # pure: Dask would answer a call that it knows with what came of it before, an error too.
        self._pool = client.get_executor(pure=False)
        self._client, self._stack = client, stack

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` on a worker; Dask runs it again where a worker is lost."""
        future: Future[Any] = self._pool.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  as in Executor
        """Close the client: when all calls have ended, or at once with `cancel_futures` or without `wait`."""
        self._pool.shutdown(wait=wait and not cancel_futures)
        self._stack.close()


@hookimpl
def register_executors() -> list[type[ExecutorFactory]]:
    """Return the executor of this package."""
    return [Dask]
