"""The engines under plugins/contrib, each really run on this machine: the same records as here, whatever dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import unmemorize
from unmemorize import api
from unmemorize.registry.manager import Registry
from unmemorize.results.store import Store
from unmemorize.suite import load_suite

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "assets" / "toy.py"
ENGINES = ("parsl", "submitit", "dask")
SETTINGS = {"parsl": "config=mine.py", "submitit": "cluster=local", "dask": "wait=60"}
OWN_CONFIG = """
from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

config = Config(
    executors=[HighThroughputExecutor(
        address="127.0.0.1", max_workers_per_node=2, cores_per_worker=0.1, heartbeat_period=1, heartbeat_threshold=10,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )],
    strategy_period=0.5, initialize_logging=False,
)
"""

SUITE = f"""
name = "engines"
description = "tiny"
[plugins]
files = ["{TOY}", "dying.py"]
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[method.durable]
[method.dying]
[method.activations]
"""

DYING = '''
"""A method during which the process that watches over its worker is killed, as when a node is lost."""

import os, signal, time
from pathlib import Path

import psutil
import torch

from unmemorize import Method, hookimpl

HERE = Path(__file__).parent


def engine():
    """Return the engine's own process: the one that started this worker, or the server that forked it."""
    return next(p for p in psutil.Process().parents() if "forkserver" not in " ".join(p.cmdline()))


class Dying(Method):
    """Halve some weights, if nothing happens."""

    name, stage, needs = "dying", "unlearn", frozenset()

    def apply(self, testbed, context):
        """Do what the files beside this one say."""
        deaths = HERE / "deaths"
        if deaths.exists():
            left = int(deaths.read_text())
            deaths.write_text(str(left - 1))
            if left > 0:
                engine().kill()
                time.sleep(300)
        if (HERE / "hang").exists():
            (HERE / "hanging").touch()
            time.sleep(300)
        with torch.no_grad():
            next(testbed.model.parameters()).mul_(0.5)


@hookimpl
def register_methods():
    return [Dying]
'''


class Run(NamedTuple):
    """A run of the suite in a process of its own."""

    process: subprocess.Popen[str]
    mark: str
    folder: Path

    def left(self) -> list[psutil.Process]:
        """Return the processes that it started and that are still there."""
        return [process for process in psutil.process_iter() if self.mark in _environment(process)]

    def ended(self, seconds: float) -> str:
        """Wait for its end, and a little for that of what it started; return what it printed."""
        try:
            out, _ = self.process.communicate(timeout=seconds)
            psutil.wait_procs(self.left(), timeout=10)
            assert not self.left(), out
            return out
        finally:
            for process in self.left():
                process.kill()


def _environment(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.environ())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """What an undisturbed run in this very process says."""
    folder = tmp_path_factory.mktemp("here")
    _write(folder)
    registry = api.load_registry()
    return _numbers(unmemorize.run(folder / "suite.toml", registry=registry, results=folder / "r", executor="inline"))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _write(folder: Path) -> None:
    for name, text in (("suite.toml", SUITE), ("dying.py", DYING), ("mine.py", OWN_CONFIG)):
        (folder / name).write_text(text)


def _start(site: Path, engine: str, folder: Path, workers: int = 1) -> Run:
    _write(folder)
    mark = uuid.uuid4().hex
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "unmemorize", "run", "suite.toml", "--executor", engine, "--results", "r",
         "--set", f"executor.{SETTINGS[engine]}", "--set", f"executor.workers={workers}", "--device", "auto"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": paths, "UNMEMORIZE_MARK": mark},
    )  # fmt: skip
    return Run(process, mark, folder / "r")


def _numbers(results: unmemorize.Results) -> dict[Any, Any]:
    frame = results.frame.select("method", "status", "values", "edited")
    return {method: values for method, *values in frame.iter_rows()}


def _check(run: Run, here: dict[Any, Any]) -> None:
    """See that every cell has one record, with the numbers that it has here."""
    assert Store(run.folder).frame()["key"].is_unique().all()
    assert _numbers(api.load_results(run.folder)) == here


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.syspath_prepend(site)
    return api.load_registry()


def test_the_examples_of_the_documentation_load(installed: Registry, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "beyond_one_machine.md").read_text()
    python, toml = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert python is not None
    assert toml is not None
    _write(tmp_path)
    (tmp_path / "my_parsl.py").write_text(python[1])
    (tmp_path / "suite.toml").write_text(SUITE + toml[1])
    suite = load_suite(tmp_path / "suite.toml", installed)
    settings = installed.executor("submitit").Config(**suite.run.executor_config)
    assert installed.executor("submitit")(settings).workers == 16
    suite = load_suite(tmp_path / "suite.toml", installed, executor="parsl", overrides=["executor.config=my_parsl.py"])
    settings = installed.executor("parsl").Config(**suite.run.executor_config)
    assert installed.executor("parsl")(settings).workers == 32


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_config_that_is_not_there_is_named_in_three_parts(
    installed: Registry, typed: Any, tmp_path: Path, command: str
) -> None:
    _write(tmp_path)
    told = typed(command, "suite.toml", "--executor", "parsl", "--set", "executor.config=none.py")
    assert told.status == 2
    assert 'run.executor_config.config = "none.py" is wrong: path does not point to a file' in told.stderr
    assert "expected: " in told.stderr
    assert "`unmemorize show parsl` lists the settings" in told.stderr


def test_an_engine_gives_the_records_of_this_process(site: Path, engine: str, here: Any, tmp_path: Path) -> None:
    run = _start(site, engine, tmp_path)
    out = run.ended(seconds=300)
    assert run.process.returncode == 0, out
    assert "4 run, 0 done before, 0 skipped, 0 failed" in out
    _check(run, here)


@pytest.mark.slow
def test_a_lost_node_changes_no_record(site: Path, engine: str, here: Any, tmp_path: Path) -> None:
    (tmp_path / "deaths").write_text("1")
    run = _start(site, engine, tmp_path)
    out = run.ended(seconds=300)
    assert run.process.returncode == 0, out
    assert (tmp_path / "deaths").read_text() == "-1"
    _check(run, here)


@pytest.mark.slow
def test_a_cell_in_which_every_node_is_lost_fails_alone(site: Path, engine: str, here: Any, tmp_path: Path) -> None:
    (tmp_path / "deaths").write_text("99")
    run = _start(site, engine, tmp_path)
    out = run.ended(seconds=500)
    assert run.process.returncode == 1, out
    assert "3 run, 0 done before, 0 skipped, 1 failed" in out
    numbers = _numbers(api.load_results(run.folder))
    assert numbers.pop("dying")[0] == "failed"
    assert numbers == {cell: values for cell, values in here.items() if cell != "dying"}
    (reason,) = api.load_results(run.folder).frame["reason"].drop_nulls()
    assert reason.startswith("the executor lost it: ")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_run_that_ends_early_leaves_no_process_and_goes_on(
    site: Path, engine: str, here: Any, tmp_path: Path, signum: signal.Signals
) -> None:
    (tmp_path / "hang").touch()
    run = _start(site, engine, tmp_path, workers=2)
    end = time.monotonic() + 120
    while not (tmp_path / "hanging").exists() and run.process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    if signum == signal.SIGINT:
        os.killpg(run.process.pid, signum)  # as a terminal does it: every process of the group
        out = run.ended(seconds=60)
        assert run.process.returncode == 130, out
    else:
        run.process.kill()
        _, left = psutil.wait_procs(run.left(), timeout=150)  # a heartbeat that is a minute old ends all
        run.ended(seconds=10)
        assert not left
    (tmp_path / "hang").unlink()
    again = _start(site, engine, tmp_path)
    out = again.ended(seconds=300)
    assert again.process.returncode == 0, out
    _check(again, here)
