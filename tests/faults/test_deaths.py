"""Whatever kills, hangs or floods a worker process is the recorded failure of its own cell, and of no other."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

import unmemorize
from unmemorize.execution import supervisor
from unmemorize.registry.manager import Registry
from unmemorize.results.store import Store

pytestmark = pytest.mark.faults

ASSETS = Path(__file__).parents[1] / "assets"
INNOCENT = {"durable": {}, "activations": {}, "random_neurons": {}}
METHODS = {
    "fine": ("done", ""),
    "exits": ("failed", r"called exit\(3\)"),
    "os_exit": ("failed", "the worker process ended with status 5 while it ran fatal"),
    "segfault": ("failed", "SIGSEGV while it ran fatal; its last output: Fatal Python error: Segmentation fault"),
    "killed": ("failed", "the worker process was ended by the signal SIGKILL while it ran fatal"),
    "interrupt": ("failed", "KeyboardInterrupt"),
    "own": ("failed", "Own: mine"),
    "generator_exit": ("failed", "GeneratorExit"),
    "stop_iteration": ("failed", "StopIteration"),
    "recursion": ("failed", "RecursionError"),
    "sleep": ("failed", r"(?s)fatal ran past its deadline of 4 s.*--deadline"),
    "loop": ("failed", "fatal ran past its deadline of 4 s"),
    "untold": ("failed", r"UntoldError: \(its text raised RuntimeError\)"),
    "long_text": ("failed", r"ValueError: xxx"),
    "odd_text": ("failed", r"ValueError: \\u001b\[31m"),
    "notes": ("failed", "cannot be written as JSON"),
    "flood": ("done", ""),
    "closes_stdout": ("done", ""),
    "closes_files": ("failed", ""),
    "forks": ("done", ""),
    "thread": ("failed", "a thread was started that still runs"),
    "child": ("done", ""),
}


class Runs:
    """Runs of the toy testbed in one results folder, with the fatal plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "results"
        self.registry = Registry.load("none")
        for file in ("toy.py", "fatal.py"):
            self.registry.add_file(ASSETS / file)

    def __call__(self, methods: dict[str, Any], *, executor: str = "processes", **options: Any) -> unmemorize.Results:
        suite = {
            "name": "deaths",
            "description": "d",
            "testbed": options.pop("testbed", {"toy": {"provider": "toy"}}),
            "metric": {"extraction": {}, "accuracy": {}, **options.pop("metric", {})},
            "method": methods,
        }
        results = unmemorize.run(
            suite, registry=self.registry, results=self.folder, device="cpu", executor=executor, **options
        )
        assert results.report is not None
        keys = results.frame["key"].to_list()
        assert sorted(keys) == sorted(results.report.keys), "not one record per cell"
        return results


def numbers(results: unmemorize.Results) -> dict[str, Any]:
    """What was measured of the methods that did nothing wrong."""
    innocent = results.frame.filter(pl.col("method").is_in(["base", *INNOCENT]))
    return {key: rest for key, *rest in innocent.select("key", "status", "values", "edited", "notes").iter_rows()}


def reasons(results: unmemorize.Results) -> dict[str, str]:
    return dict(results.frame.select("method", pl.col("reason").fill_null("")).iter_rows())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return numbers(Runs(tmp_path_factory.mktemp("undisturbed"))(INNOCENT, executor="inline"))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[unmemorize.Results]:
    """One run with every fatal method, and others before and after them."""
    folder = tmp_path_factory.mktemp("disturbed")
    first, *others = INNOCENT
    methods = {first: {}, "fatal": {"kind": list(METHODS)}, **{other: {} for other in others}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "_GRACE_SECONDS", 0.5)
        patch.setenv("CHILD", str(folder / "child"))
        patch.setenv("UNMEMORIZE_CACHE", str(folder / "cache"))
        yield Runs(folder)(methods, deadline=4.0)


def the(results: unmemorize.Results, kind: str) -> dict[str, Any]:
    (row,) = (
        row for row in results.frame.filter(pl.col("method") == "fatal").to_dicts()
        if json.loads(row["method_config"])["kind"] == kind
    )  # fmt: skip
    return row


@pytest.mark.parametrize("kind", METHODS)
def test_a_fatal_method_is_one_honest_record(disturbed: unmemorize.Results, kind: str) -> None:
    status, words = METHODS[kind]
    row = the(disturbed, kind)
    assert (row["status"], bool(re.search(words, row["reason"] or ""))) == (status, True), row["reason"]
    assert len(row["reason"] or "") <= 2_100
    assert len(row["traceback"] or "") <= 20_100


def test_the_numbers_of_the_others_are_those_of_an_undisturbed_run(
    disturbed: unmemorize.Results, undisturbed: dict[str, Any]
) -> None:
    assert numbers(disturbed) == undisturbed


def test_a_hanging_cell_says_where_it_was(disturbed: unmemorize.Results) -> None:
    assert "in loop" in the(disturbed, "loop")["traceback"]
    assert "fatal.py" in the(disturbed, "sleep")["traceback"]


def test_deaths_are_counted(disturbed: unmemorize.Results) -> None:
    deaths = {kind: the(disturbed, kind)["deaths"] for kind in METHODS}
    assert {kind for kind, count in deaths.items() if count} >= {"os_exit", "segfault", "killed"}
    assert (deaths["os_exit"], deaths["sleep"], deaths["exits"], deaths["flood"]) == (2, 0, 0, 0)


def test_what_a_cell_started_does_not_outlive_its_worker(disturbed: unmemorize.Results) -> None:
    assert not psutil.pid_exists(int((disturbed.folder.parent / "child").read_text()))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_cell_in_which_processes_died_twice_is_tried_again_only_when_asked(runs: Runs) -> None:
    methods = {"fatal": {"kind": "os_exit"}, "durable": {}}
    reports = [runs(methods, retry=retry).report for retry in (False, False, True)]
    assert [(r.done, r.failed, r.cached, r.dead) for r in reports if r] == [(2, 1, 0, 0), (0, 0, 2, 1), (0, 1, 2, 0)]


def test_a_cell_whose_process_died_once_is_run_again_at_the_end(
    runs: Runs, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    results = runs({"fatal": {"kind": "killed", "on": str(tmp_path / "once")}, **INNOCENT})
    assert set(results.frame["status"]) == {"done"}
    assert results.report == results.report._replace(done=5, failed=0)  # type: ignore[union-attr]
    assert numbers(results) == undisturbed


def test_memory_is_limited(runs: Runs, undisturbed: dict[str, Any]) -> None:
    results = runs({"fatal": {"kind": "grow"}, **INNOCENT}, memory="1200MB")
    assert "fatal took" in reasons(results)["fatal"]
    assert "more than its limit of 1.12 GiB" in reasons(results)["fatal"]
    assert "in grow" in results.frame.filter(pl.col("method") == "fatal")["traceback"].item()
    assert numbers(results) == undisturbed


@pytest.mark.parametrize("kind", ["os_exit", "interrupt", "segfault"])
def test_a_fatal_metric_fails_every_cell_that_it_measures(runs: Runs, kind: str) -> None:
    results = runs({"durable": {}}, metric={"fatal_metric": {"kind": kind}})
    assert set(results.frame["status"]) == {"failed"}
    assert results.report == results.report._replace(failed=2)  # type: ignore[union-attr]


def test_fatal_providers_fail_their_own_cells(runs: Runs, undisturbed: dict[str, Any]) -> None:
    kinds = {"exits": "called exit", "os_exit": "status 5 while it loaded the testbed", "interrupt": "Keyboard",
             "own": "Own: mine", "killed": "SIGKILL while it loaded", "untold": "its text raised"}  # fmt: skip
    bad = {kind: {"provider": "fatal_provider", "kind": kind} for kind in kinds}
    results = runs(INNOCENT, testbed={**bad, "toy": {"provider": "toy"}})
    for kind, words in kinds.items():
        rows = results.frame.filter(pl.col("testbed") == kind)
        assert set(rows["status"]) == {"failed"}
        assert all(words in reason for reason in rows["reason"]), (kind, rows["reason"].to_list())
    toys = results.frame.filter(pl.col("testbed") == "toy")
    assert numbers(unmemorize.Results(toys, results.folder)) == undisturbed


def test_deleted_results_are_made_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    monkeypatch.setenv("RESULTS", str(runs.folder))
    lost = pytest.warns(RuntimeWarning, match="records of this run are not in")
    with lost, pytest.raises(AssertionError, match="not one record per cell"):
        runs({"fatal": {"kind": "deletes_results"}, **INNOCENT})
    assert numbers(runs(INNOCENT)) == undisturbed


def kill_a_worker(after: float) -> None:
    """Kill the worker process of this process: forked by its only child that has children."""
    time.sleep(after)
    for child in psutil.Process().children():
        for worker in child.children():
            worker.kill()


@pytest.mark.parametrize("seed", [0, 1, *[pytest.param(n, marks=pytest.mark.slow) for n in range(2, 20)]])
def test_a_worker_that_is_killed_at_any_moment_changes_nothing(
    runs: Runs, undisturbed: dict[str, Any], seed: int
) -> None:
    killer = threading.Thread(target=kill_a_worker, args=(random.Random(seed).uniform(0.0, 2.0),))
    killer.start()
    results = runs(INNOCENT)
    killer.join()
    assert numbers(results) == undisturbed
    assert runs(INNOCENT).report == results.report._replace(cached=4, done=0)  # type: ignore[union-attr]


PARENT = """
import sys, unmemorize
unmemorize.run(
    {"name": "p", "description": "d", "testbed": {"toy": {"provider": "toy"}}, "metric": {"extraction": {}, "accuracy": {}},
     "method": {"fatal": {"kind": sys.argv[2]}}},
    plugins=[sys.argv[3], sys.argv[4]], results=sys.argv[1], device="cpu", executor="processes",
)
"""  # noqa: E501


@pytest.mark.parametrize("kind", ["sleep", pytest.param("loop", marks=pytest.mark.slow)])
def test_no_process_outlives_a_run_that_is_killed(tmp_path: Path, kind: str) -> None:
    files = [str(ASSETS / name) for name in ("toy.py", "fatal.py")]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "r"), kind, *files])
    deadline = time.monotonic() + 120
    while not Store(tmp_path / "r").done_keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


SLEEPY = """
import time, torch
from typing import Annotated
from unmemorize import Method, StrictConfig, hookimpl
class Config(StrictConfig):
    "Which."
    number: int = 0
    "Which one."
class Sleepy(Method):
    "Sleep, then edit."
    name, stage, needs, Config = "sleepy", "unlearn", frozenset(), Config
    def apply(self, testbed, context):
        time.sleep(0.3)
        with torch.no_grad():
            next(testbed.model.parameters()).mul_(0.9 + self.config.number / 1000)
@hookimpl
def register_methods():
    return [Sleepy]
"""


@pytest.mark.slow
def test_two_workers_share_the_cells_of_one_testbed(tmp_path: Path) -> None:
    (tmp_path / "sleepy.py").write_text(SLEEPY)
    seconds, values = {}, {}
    Runs(tmp_path / "warm")({"durable": {}})  # what worker processes import is imported once
    for workers in (1, 2):
        runs = Runs(tmp_path / str(workers))
        runs.registry.add_file(tmp_path / "sleepy.py")
        begin = time.monotonic()
        results = runs({"sleepy": {"number": list(range(40))}}, overrides=[f"executor.workers={workers}"])
        seconds[workers] = time.monotonic() - begin
        values[workers] = results.frame.sort("key").select("key", "status", "values").rows()
    assert values[1] == values[2]
    assert seconds[1] / seconds[2] >= 1.6, seconds
