"""Cells run by submitit (Facebook Research): every chunk is a job of SLURM, which may be preempted and requeued."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import psutil
from pydantic import Field

from unmemorize import ConfigError, ExecutorFactory, StrictConfig, hookimpl

if TYPE_CHECKING:
    import submitit

Count = Annotated[int, Field(ge=1)]


class SubmititConfig(StrictConfig):
    """What a job asks for."""

    cluster: Literal["auto", "slurm", "local", "debug"] = "auto"
    """SLURM, processes of this machine, or this very process; auto: SLURM where it is there, and else this machine."""
    workers: Count = 4
    """Jobs at once."""
    folder: Path = Path("unmemorize-jobs")
    """Where jobs and their logs are written; on SLURM, a place that the nodes see."""
    timeout_min: Count = 60
    """Walltime of a job in minutes. A chunk that is not done by then is requeued and goes on."""
    max_num_timeout: Annotated[int, Field(ge=0)] = 20
    """How often a job may reach its walltime; it may be preempted any number of times."""
    partition: str | None = None
    """SLURM's partition."""
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs of a job; also on this machine a job sees none that it does not ask for."""
    cpus_per_task: Count | None = None
    """Cores of a job."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of a job in GB."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What else `submitit.AutoExecutor.update_parameters` takes: `slurm_account`, `slurm_setup`, `slurm_qos`."""


class Submitit(ExecutorFactory):
    """Run each chunk of cells as a job of its own."""

    name = "submitit"
    elsewhere = True
    Config = SubmititConfig

    @property
    def workers(self) -> int:
        """How many chunks run at once."""
        return 1 if self.config.cluster == "debug" else self.config.workers

    def create(self) -> Executor:
        """Return a pool that submits a job for each chunk."""
        return Pool(self._submitter(), self.workers)

    def _submitter(self) -> submitit.AutoExecutor:
        import submitit

        said = self.config
        try:
            submitter = submitit.AutoExecutor(
                said.folder.absolute() / "%j",
                cluster=None if said.cluster == "auto" else said.cluster,
                slurm_max_num_timeout=said.max_num_timeout,
                local_max_num_timeout=said.max_num_timeout,
            )
            submitter.update_parameters(
                name="unmemorize",
                **said.model_dump(include={"timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb"}),
                slurm_partition=said.partition,
                **said.parameters,
            )
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"submitit takes no such job: {error}",
                expected="a cluster that is there, and parameters of submitit's AutoExecutor",
                fix="correct run.executor_config (on the command line: --set executor.cluster=local); "
                "`unmemorize show submitit` lists the settings",
            ) from error
        return submitter


class Pool(Executor):
    """As many threads as jobs may run at once: each submits one, waits for it, and returns what came of it."""

    def __init__(self, submitter: submitit.AutoExecutor, workers: int) -> None:
        """Submit with `submitter`, at most `workers` at once."""
        self._submitter = submitter
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="submitit", initializer=_block_interrupts)
        self._submitting = threading.Lock()
        self._stopped = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` in a job."""
        return self._threads.submit(self._in_job, fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  as in Executor
        """Wait for all jobs, or cancel them with `cancel_futures` or without `wait`."""
        if cancel_futures or not wait:
            self._stopped.set()
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _in_job(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self._submitting:
            job = self._submitter.submit(Resumable(fn), *args, **kwargs)
        while not job.done():
            if self._stopped.wait(1.0):
                _cancel(job)
                raise CancelledError
        return job.result()


def _block_interrupts() -> None:
    """Let a Ctrl-C reach only the run, which then cancels its jobs: those of this machine inherit what is blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _cancel(job: submitit.Job[Any]) -> None:
    """Cancel a job; one of this machine has ended when this returns, with every process that it started."""
    import submitit

    if not isinstance(job, submitit.LocalJob):
        job.cancel(check=False)
        return
    try:
        controller = psutil.Process(int(job.job_id))
        family = [*controller.children(recursive=True), controller]
    except psutil.Error:
        family = []
    for process in family:
        with suppress(psutil.Error):
            process.kill()
    while not job.done():
        time.sleep(0.02)


class Resumable:
    """A call that is made again when its job was preempted or has reached its walltime: what it recorded is kept."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        """Call `fn`."""
        self.fn = fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.fn(*args, **kwargs)

    def checkpoint(self, *args: Any, **kwargs: Any) -> submitit.core.utils.DelayedSubmission:
        """Return the same call; submitit puts it into the queue again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args, **kwargs)


@hookimpl
def register_executors() -> list[type[ExecutorFactory]]:
    """Return the executor of this package."""
    return [Submitit]
