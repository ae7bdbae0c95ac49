"""Worker processes on this machine: testbeds and seeds side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Annotated

from pydantic import Field

from unmemorize import ExecutorFactory, StrictConfig


class ProcessesConfig(StrictConfig):
    """How many processes, and how many threads each of them may use."""

    workers: Annotated[int, Field(ge=1)] = 2
    """Processes at once; each takes one testbed and seed at a time."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of each process: two processes with two threads each crawl on two cores."""


class Processes(ExecutorFactory):
    """Run groups of cells (one testbed and seed each) in worker processes."""

    name = "processes"
    Config = ProcessesConfig

    def create(self) -> Executor:
        """Return a pool of fresh processes."""
        return ProcessPoolExecutor(
            max_workers=self.config.workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self.config.threads,),
        )


def _prepare(threads: int) -> None:
    import torch

    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # at Ctrl-C the run reports, and its workers just end
    torch.set_num_threads(threads)
