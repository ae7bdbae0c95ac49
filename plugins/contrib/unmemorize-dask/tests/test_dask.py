from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from unmemorize import ConfigError
from unmemorize_dask import Dask


def test_a_scheduler_that_does_not_answer_is_refused_in_three_parts(tmp_path: Path) -> None:
    (tmp_path / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    for settings in ({"address": "tcp://127.0.0.1:9"}, {"scheduler_file": tmp_path / "scheduler.json"}):
        with pytest.raises(ConfigError, match="no Dask scheduler answers") as said:
            Dask(wait=0.2, **settings).create()
        assert "dask scheduler" in said.value.fix
    with pytest.raises(ConfigError, match="no Dask scheduler answers at nonsense://here"):
        _ = Dask(address="nonsense://here").workers


def test_a_cluster_that_is_there_is_used_and_left_alone() -> None:
    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None) as cluster:
        dask = Dask(address=cluster.scheduler_address)
        assert dask.workers == 3
        assert Dask(address=cluster.scheduler_address, workers=5).workers == 5
        for _ in range(2):
            with dask.create() as pool:
                assert pool.submit(os.getpid).result() != os.getpid()
        assert len(cluster.scheduler_info["workers"]) == 1


def test_the_same_call_is_made_anew_and_a_hanging_one_is_left_at_the_end() -> None:
    with Dask(workers=1).create() as pool:
        first, second = (pool.submit(os.urandom, 8).result() for _ in range(2))
        assert first != second
        pool.submit(subprocess.run, ["sleep", "300"])
        start = time.monotonic()
        pool.shutdown(wait=False, cancel_futures=True)
    assert time.monotonic() - start < 20
    assert (Dask().workers, Dask(workers=3).workers) == (2, 3)
