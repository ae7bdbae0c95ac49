"""The process of a worker, seen from the process that started it."""

from __future__ import annotations

import gc
import multiprocessing
import sys
from typing import Any

import pytest

from unmemorize.execution.worker_process import WorkerProcess


def test_a_process_that_could_not_be_started_leaves_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> None:
        raise ConnectionResetError

    said: list[Any] = []
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", lost)
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with pytest.raises(ConnectionResetError):
        WorkerProcess("cpu", {}, 1)
    gc.collect()
    assert said == []
