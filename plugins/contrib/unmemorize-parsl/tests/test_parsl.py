from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from unmemorize import ConfigError
from unmemorize_parsl import MOST, Parsl, ParslConfig

CLUSTER = """
import parsl
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider, SlurmProvider

nodes = SlurmProvider(partition="gpu", nodes_per_block=2, max_blocks={blocks})
config = parsl.Config(executors=[
    HighThroughputExecutor(label="nodes", address="127.0.0.1", max_workers_per_node=4, provider=nodes),
    ThreadPoolExecutor(label="here", max_threads=3),
])
"""


def configured(file: Path, **settings: Any) -> Parsl:
    return Parsl(ParslConfig(config=file, **settings))


def test_the_blocks_nodes_and_workers_of_a_config_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for blocks, workers in (("5", 5 * 2 * 4 + 3), ("10**6", MOST)):
        file.write_text(CLUSTER.format(blocks=blocks))
        assert configured(file).workers == workers
        assert configured(file, workers=7).workers == 7
    assert (Parsl().workers, Parsl(workers=3).workers) == (2, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import nothing_of_the_kind", "cannot be executed: ModuleNotFoundError: No module named"),
        ("import sys; sys.exit('no modules here')", "cannot be executed: SystemExit: no modules here"),
        ("conf = 3", "defines no `config`"),
        ("config = dict(executors=[])", "is a dict"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_three_parts(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    for ask in (lambda: configured(file).workers, configured(file).create):
        with pytest.raises(ConfigError, match=r"mine\.py") as said:
            ask()
        assert what in said.value.what
        assert "parsl.Config" in said.value.expected
        assert "mine.py" in said.value.fix


def test_a_config_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="does not point to a file"):
        configured(tmp_path / "none.py")


def test_pools_follow_each_other_and_end_what_still_runs() -> None:
    path = os.environ["PATH"]
    for _ in range(2):
        with Parsl(workers=1).create() as pool:
            worker = pool.submit(os.getpid).result()
            assert worker != os.getpid()
            hanging = pool.submit(subprocess.run, ["sleep", "300"])
            start = time.monotonic()
            pool.shutdown(wait=False, cancel_futures=True)
        assert time.monotonic() - start < 20
        assert not hanging.done()
        psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=10)
        assert not psutil.pid_exists(worker)
        assert os.environ["PATH"] == path
