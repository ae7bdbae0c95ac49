"""Peak memory of a piece of work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

SAMPLING_SECONDS = 0.01


@dataclass(slots=True)
class MemoryPeak:
    """Bytes at the start and at the peak: of the device on an accelerator, of the process's resident set otherwise."""

    start: int = 0
    peak: int = 0

    @property
    def extra(self) -> int:
        """Bytes above the level at the start."""
        return max(0, self.peak - self.start)


@contextmanager
def memory_peak(device: str) -> Iterator[MemoryPeak]:
    """Measure the peak of what happens inside; the result is complete once the context has closed."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        measured = MemoryPeak(start=torch.cuda.memory_allocated())
        try:
            yield measured
        finally:
            measured.peak = torch.cuda.max_memory_allocated()
        return
    process = psutil.Process()
    measured = MemoryPeak(start=process.memory_info().rss)
    measured.peak = measured.start
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLING_SECONDS):
            measured.peak = max(measured.peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True, name="memory-peak")
    watcher.start()
    try:
        yield measured
    finally:
        ended.set()
        watcher.join()
        measured.peak = max(measured.peak, process.memory_info().rss)
