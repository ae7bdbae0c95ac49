"""Worker processes on this machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Annotated, Any

from pydantic import Field

from unmemorize import ExecutorFactory, StrictConfig


class ProcessesConfig(StrictConfig):
    """How many processes, and how many threads each of them may use."""

    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes at once; by default one for each accelerator that the run may use, or one."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of each process; by default they share the cores, or have what --threads says."""


class Processes(ExecutorFactory):
    """Run chunks of cells in worker processes on this machine."""

    name = "processes"
    by_default = True
    Config = ProcessesConfig

    def create(self) -> Executor:
        """Return a pool of threads, each of which watches over one process."""
        return _Pool([self._environment(slot) for slot in range(self.workers)])

    def _environment(self, slot: int) -> dict[str, str]:
        threads = self.config.threads
        if threads is None and self.workers > 1 and "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, (os.cpu_count() or 1) // self.workers)
        shared = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        accelerators = _accelerators()
        if self.workers > 1 and len(accelerators) > 1:
            shared["CUDA_VISIBLE_DEVICES"] = accelerators[slot % len(accelerators)]
        return shared


class _Pool(ThreadPoolExecutor):
    """Gives each of its threads an environment of its own, for the worker processes of that thread."""

    def __init__(self, environments: list[dict[str, str]]) -> None:
        super().__init__(max_workers=len(environments), thread_name_prefix="unmemorize")
        self._environments, self._own = iter(environments), threading.local()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Run a task, and tell it which variables its worker process is to have."""
        return super().submit(self._run, function, *arguments, **keywords)

    def _run(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        if not hasattr(self._own, "environment"):
            self._own.environment = next(self._environments)
        return function(*arguments, environment=self._own.environment, **keywords)


def _accelerators() -> list[str]:
    """Return the accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
