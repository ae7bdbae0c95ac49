from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from unmemorize import ConfigError
from unmemorize_submitit import Submitit

TWICE = 'test -e "$0" && echo again || { touch "$0"; exec sleep 300; }'
"""Hangs when it runs for the first time, and not when it runs again."""


def local(folder: Path, **settings: Any) -> Submitit:
    return Submitit(cluster="local", folder=folder / "jobs", workers=2, timeout_min=5, **settings)


def job_process(within: Path) -> psutil.Process:
    """The process of the only job, once it has started something."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            if "submitit.core._submit" in process.cmdline() and within.exists():
                return process
        time.sleep(0.1)
    raise AssertionError("no job has started")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cluster": "slurm"}, "srun"),
        ({"cluster": "local", "parameters": {"slurm_acount": "me"}}, "Unknown argument 'acount'"),
        ({"cluster": "local", "parameters": {"nodes": "two"}}, 'Parameter "nodes" expected type'),
        ({"cluster": "local", "parameters": {"timeout_min": 3}}, "multiple values for keyword argument 'timeout_min'"),
    ],
)
def test_jobs_that_cannot_be_are_refused_in_three_parts(tmp_path: Path, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match="submitit takes no such job") as error:
        Submitit(folder=tmp_path, **settings).create()
    assert said in error.value.what
    assert "unmemorize show submitit" in error.value.fix


def test_a_preempted_job_goes_into_the_queue_again(tmp_path: Path) -> None:
    with local(tmp_path).create() as pool:
        again = pool.submit(subprocess.check_output, ["sh", "-c", TWICE, str(tmp_path / "ran")])
        job_process(within=tmp_path / "ran").send_signal(signal.SIGUSR2)
        assert again.result(timeout=60) == b"again\n"


def test_jobs_in_progress_are_cancelled_and_waiting_ones_never_start(tmp_path: Path) -> None:
    with local(tmp_path).create() as pool:
        futures = [pool.submit(subprocess.run, ["sh", "-c", TWICE, str(tmp_path / str(name))]) for name in range(3)]
        job = job_process(within=tmp_path / "0")
        family = [job, *job.children(recursive=True), job.parent()]
        start = time.monotonic()
        pool.shutdown(wait=False, cancel_futures=True)
    assert time.monotonic() - start < 20
    assert all(future.cancelled() or future.exception(timeout=10) for future in futures)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not (tmp_path / "2").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its two log files open
def test_debug_runs_in_this_process(tmp_path: Path) -> None:
    debug = Submitit(cluster="debug", folder=tmp_path, workers=3)
    assert (debug.workers, local(tmp_path).workers) == (1, 2)
    with debug.create() as pool:
        assert pool.submit(os.getpid).result() == os.getpid()
