"""Running: every cell becomes one record, nothing is lost, and only what is missing is run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

import unmemorize
from unmemorize import ConfigError, Context, Method, Testbed
from unmemorize.registry.hookspecs import CellEvent, hookimpl
from unmemorize.registry.manager import Registry
from unmemorize.results.store import Store

Run = Callable[..., unmemorize.Results]
EDITS = {
    "durable": {"ratio": 0.05},
    "activations": {"ratio": [0.05, 0.1]},
    "balanced_subnet": {"epochs": 1, "ratio": 0.05},
}


def numbers(results: unmemorize.Results) -> list[tuple[Any, ...]]:
    """What was measured, without seconds and times."""
    frame = results.frame.sort("key").select("key", "status", "method", "values", "edited", "notes")
    return frame.rows()


def statuses(results: unmemorize.Results) -> dict[str, str]:
    return dict(results.frame.select("method", "status").iter_rows())


def reason(results: unmemorize.Results, method: str) -> str:
    return results.frame.filter(pl.col("method") == method)["reason"].item()


def test_base_and_methods_become_records(run_toys: Run) -> None:
    results = run_toys(EDITS)
    assert statuses(results) == dict.fromkeys(["base", "durable", "activations", "balanced_subnet"], "done")
    assert results.report is not None
    assert (results.report.done, results.report.cached, results.report.failed) == (5, 0, 0)
    base = Store(results.folder).record(results.report.keys[0])
    assert base is not None
    extraction = next(v for v in base.values if v.metric == "extraction@4+8" and v.set == "forget" and v.part == "all")
    assert extraction.before == extraction.after == 100.0
    assert base.edited == 0


def test_one_name_stands_for_a_list_of_one(tmp_path: Path) -> None:
    toy = str(Path(__file__).parents[1] / "assets" / "toy.py")
    suite = {"name": "s", "description": "d", "testbed": {"toy": {"provider": "toy"}},
             "metric": {"extraction": {}, "accuracy": {}}, "method": EDITS}  # fmt: skip
    results = unmemorize.run(suite, plugins=toy, methods="durable", results=tmp_path / "r", device="cpu")
    assert set(results.frame["method"]) == {"base", "durable"}
    with pytest.raises(ConfigError, match=r"run\(\) got both plugins and a registry"):
        unmemorize.run(suite, plugins=toy, registry=Registry.load("none"), results=tmp_path / "r")


def test_a_record_says_how_to_make_it_again(run_toys: Run) -> None:
    results = run_toys({"durable": {}})
    assert results.report is not None
    record = Store(results.folder).record(results.report.keys[1])
    assert record is not None
    assert record.method_config["ratio"] == 0.05
    assert record.method_origin is not None
    assert record.method_origin.distribution == "unmemorize"
    assert record.provider.distribution == "toy.py"
    assert len(record.provider.version) == 12
    assert record.environment["torch"] == __import__("torch").__version__
    assert record.testbed_facts == {"made_by": "toy"}
    assert record.needs == ["forget"]
    assert set(record.seconds) >= {"attribute", "edit", "prepare"}
    assert record.total_seconds == pytest.approx(sum(record.seconds.values()))
    assert record.peak_memory is not None
    assert record.peak_memory > 10**7
    assert record.edited == record.notes["selected_weights"]
    assert Store(results.folder).per_sequence(record.key)["value"].len() > 12


def test_the_same_suite_twice_gives_the_same_numbers(run_toys: Run, tmp_path: Path) -> None:
    first = numbers(run_toys(EDITS))
    os.rename(tmp_path / "results", tmp_path / "earlier")
    assert numbers(run_toys(EDITS)) == first


def test_running_again_runs_nothing(run_toys: Run) -> None:
    first = run_toys(EDITS)
    again = run_toys(EDITS)
    assert again.report is not None
    assert (again.report.done, again.report.cached) == (0, 5)
    assert numbers(again) == numbers(first)


def test_changing_one_knob_runs_what_it_touches(run_toys: Run) -> None:
    run_toys(EDITS)
    again = run_toys(EDITS | {"durable": {"ratio": 0.1}})
    assert again.report is not None
    assert (again.report.done, again.report.cached) == (1, 4)


def test_methods_after_a_resume_have_the_same_numbers(run_toys: Run, tmp_path: Path) -> None:
    whole = numbers(run_toys(EDITS))
    os.rename(tmp_path / "results", tmp_path / "earlier")
    run_toys({"durable": {"ratio": 0.05}})
    assert numbers(run_toys(EDITS)) == whole


def test_each_cell_starts_from_the_untouched_model(run_toys: Run) -> None:
    row = run_toys({"toy_breaks": {}, "durable": {"ratio": 0.05}}).frame.filter(pl.col("method") == "durable")
    assert row["edited"].item() == json.loads(row["notes"].item())["selected_weights"]


def test_what_fails_is_recorded_and_tried_again(run_toys: Run) -> None:
    results = run_toys({"toy_breaks": {}, "durable": {}})
    assert statuses(results) == {"base": "done", "toy_breaks": "failed", "durable": "done"}
    assert "RuntimeError: half-way" in reason(results, "toy_breaks")
    trace = results.frame.filter(pl.col("method") == "toy_breaks")["traceback"].item()
    assert "toy.py" in trace
    again = run_toys({"toy_breaks": {}, "durable": {}})
    assert again.report is not None
    assert (again.report.failed, again.report.cached, again.report.done) == (1, 2, 0)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("toy_nothing", "without changing a single parameter"),
        ("toy_peeks", "used 'holdouts', which it does not declare"),
        ("toy_nan", "not finite"),
    ],
)
def test_dishonest_methods_fail_with_their_reason(run_toys: Run, method: str, words: str) -> None:
    results = run_toys({method: {}})
    assert statuses(results)[method] == "failed"
    assert words in reason(results, method)


def test_the_deadline_ends_a_method(run_toys: Run) -> None:
    results = run_toys({"toy_slow": {}}, deadline=0.2)
    assert "ran past its deadline of 0.2 s" in reason(results, "toy_slow")


def test_what_does_not_apply_is_skipped_with_the_reason(run_toys: Run) -> None:
    results = run_toys({"toy_rewrites": {}})
    assert statuses(results) == {"base": "done", "toy_rewrites": "skipped"}
    assert reason(results, "toy_rewrites") == "it needs the clean set, and this testbed has none"


def test_regularizers_train_again_and_finetuning_reports_its_curve(run_toys: Run) -> None:
    results = run_toys({"loss_truncation": {"warmup_steps": 0}, "extra": {"epochs": 2}})
    assert set(statuses(results).values()) == {"done"}
    curves = dict(results.frame.select("method", "curve").iter_rows())
    assert curves["extra"] is not None
    points = json.loads(curves["extra"])
    assert [point["epoch"] for point in points] == [1, 2]
    assert all({"extraction@4+8", "accuracy"} < set(point) for point in points)


def test_seeds_are_separate_testbeds(run_toys: Run) -> None:
    results = run_toys({"durable": {}}, seeds=[0, 1])
    assert results.report is not None
    assert results.report.done == 4
    assert results.frame["data_digest"].n_unique() == 2


def test_trackers_hear_of_every_cell(run_toys: Run, toys: Registry) -> None:
    heard: list[tuple[str, str]] = []

    class Tracker:
        @hookimpl
        def cell_started(self, event: CellEvent) -> None:
            heard.append((event.method, event.status))

        @hookimpl
        def cell_finished(self, event: CellEvent) -> None:
            assert event.record is not None
            assert event.total == 3
            heard.append((event.method, event.status))

    toys.add(Tracker(), name="tracker")
    run_toys({"durable": {}, "toy_breaks": {}})
    assert heard == [
        ("base", "started"), ("base", "done"), ("durable", "started"), ("durable", "done"),
        ("toy_breaks", "started"), ("toy_breaks", "failed"),
    ]  # fmt: skip


def test_a_testbed_that_cannot_be_made_fails_its_cells(run_toys: Run) -> None:
    results = run_toys({"durable": {}}, testbed={"architecture": "no such thing"})
    assert set(statuses(results).values()) == {"failed"}


def test_worker_processes_give_the_same_numbers(run_toys: Run, tmp_path: Path) -> None:
    here = numbers(run_toys({"durable": {}, "activations": {}}, seeds=[0, 1]))
    os.rename(tmp_path / "results", tmp_path / "earlier")
    elsewhere = run_toys({"durable": {}, "activations": {}}, seeds=[0, 1], executor="processes")
    assert numbers(elsewhere) == here


def test_objects_of_this_process_go_to_workers_if_they_pickle(run_toys: Run, toys: Registry, tmp_path: Path) -> None:
    class Dims(Method):
        name, stage, needs = "dims", "unlearn", frozenset[str]()

        def apply(self, testbed: Testbed, context: Context) -> None:
            with torch.no_grad():
                next(testbed.model.parameters()).mul_(0.5)

    toys.add(SimpleNamespace(register_methods=hookimpl(lambda: [Dims])), name="dimming")
    results = run_toys({"dims": {}}, executor="processes")
    assert statuses(results) == {"base": "done", "dims": "done"}

    class Elsewhere(unmemorize.ExecutorFactory):
        name = "elsewhere"
        create = None  # type: ignore[assignment]

    toys.add(SimpleNamespace(register_executors=hookimpl(lambda: [Elsewhere]), lock=threading.Lock()), name="locked")
    with pytest.raises(unmemorize.ConfigError, match="'locked', an object of this process, cannot be sent"):
        run_toys({"durable": {}}, executor="processes")


FAR = '''
"""An executor as of other machines, whose first nodes are lost as soon as `durable` is next."""

import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from unmemorize import ExecutorFactory, StrictConfig, hookimpl


class Config(StrictConfig):
    losses: int = 0
    """How many nodes are lost."""
    repeats: bool = False
    """Whether the nodes start anew what was lost, and tell nobody."""


class Nodes(ThreadPoolExecutor):
    losses, repeats = 0, False

    def submit(self, fn, /, task, *others):
        def call():
            there, *rest = pickle.loads(pickle.dumps((task, *others)))
            Path(__file__).with_name("device").write_text(there.runtime.device)
            methods = [cell.method for cell in there.cells]
            if "durable" not in methods or not self.losses:
                return fn(there, *rest)
            self.losses -= 1
            fn(dataclasses.replace(there, cells=there.cells[: methods.index("durable")]), *rest)
            if self.repeats:
                return call()
            raise OSError("node 7 is gone")

        return super().submit(call)


class Far(ExecutorFactory):
    """Run chunks far away."""

    name, Config, elsewhere = "far", Config, True

    def create(self):
        """Return the nodes."""
        nodes = Nodes(1)
        nodes.losses, nodes.repeats = self.config.losses, self.config.repeats
        return nodes


@hookimpl
def register_executors():
    return [Far]
'''


@pytest.mark.parametrize(
    ("losses", "repeats", "failed"),
    [(2, "false", 0), (99, "false", 1), (4, "true", 0)],
    ids=["run again", "failed", "repeated"],
)
def test_what_a_lost_node_had_not_recorded_is_run_again(
    run_toys: Run, toys: Registry, tmp_path: Path, losses: int, repeats: str, failed: int
) -> None:
    (tmp_path / "far.py").write_text(FAR)
    toys.add_file(tmp_path / "far.py")
    methods: dict[str, Any] = {"activations": {}, "durable": {}, "balanced_subnet": {"epochs": 1}}
    results = run_toys(methods, executor="far", overrides=[f"executor.losses={losses}", f"executor.repeats={repeats}"])
    assert results.report is not None
    assert (results.report.done, results.report.failed) == (4 - failed, failed)
    assert Store(results.folder).frame()["key"].is_unique().all()
    if failed:
        assert reason(results, "durable") == "the executor lost it: OSError: node 7 is gone"
    os.rename(tmp_path / "results", tmp_path / "far")
    same = [row for row in numbers(run_toys(methods)) if not (failed and row[2] == "durable")]
    assert [row for row in numbers(results) if row[1] == "done"] == same


SIGNALLED = '''
import os, signal
import torch
from unmemorize import Method, hookimpl

class Signalled(Method):
    """Halve some weights, while a scheduler announces the end of the job."""

    name, stage, needs = "signalled", "unlearn", frozenset()

    def apply(self, testbed, context):
        """Do it."""
        for name in ("SIGTERM", "SIGHUP", "SIGCONT", "SIGUSR2"):
            os.kill(os.getpid(), getattr(signal, name))
        with torch.no_grad():
            next(testbed.model.parameters()).mul_(0.5)

@hookimpl
def register_methods():
    return [Signalled]
'''


def test_a_device_is_chosen_where_a_chunk_runs(run_toys: Run, toys: Registry, tmp_path: Path) -> None:
    (tmp_path / "far.py").write_text(FAR)
    toys.add_file(tmp_path / "far.py")
    with pytest.raises(unmemorize.ConfigError, match="cuda"):
        run_toys({"durable": {}}, executor="far", device="cuda:99")
    assert (tmp_path / "device").read_text() == "cuda:99"


def test_what_schedulers_send_to_every_process_of_a_job_ends_no_cell(
    run_toys: Run, toys: Registry, tmp_path: Path
) -> None:
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    toys.add_file(tmp_path / "signalled.py")
    assert statuses(run_toys({"signalled": {}}, executor="processes")) == {"base": "done", "signalled": "done"}


KILLED = """
import sys, unmemorize
from unmemorize.registry.hookspecs import hookimpl
class Tell:
    @hookimpl
    def cell_finished(self, event):
        print(event.method, flush=True)   # plugins print to standard error
        if event.method == "durable":
            sys.stdin.readline()   # wait here until the parent has killed this process
unmemorize.run(sys.argv[1], plugins=[Tell()], results=sys.argv[2], device="cpu")
"""


def test_a_killed_run_loses_only_the_cell_in_progress(tmp_path: Path, toys: Registry) -> None:
    toy = Path(__file__).parents[1] / "assets" / "toy.py"
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'name = "killed"\ndescription = "d"\n[plugins]\nfiles = ["{toy}"]\n[testbed.toy]\nprovider = "toy"\n'
        "[metric.extraction]\n[metric.accuracy]\n"
        "[method.durable]\n[method.activations]\n[method.balanced_subnet]\nepochs = 1\n"
    )
    whole = unmemorize.run(suite, results=tmp_path / "whole", device="cpu")
    environment = os.environ | {"UNMEMORIZE_PLUGINS": "none"}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(suite), str(tmp_path / "killed")],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip() == "durable":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    assert process.stdin is not None
    process.stdin.close()
    (shard,) = (tmp_path / "killed" / "records").iterdir()
    with shard.open("a") as file:
        file.write('{"key": "torn')
    again = unmemorize.run(suite, results=tmp_path / "killed", device="cpu")
    assert again.report is not None
    assert (again.report.cached, again.report.done) == (2, 2)
    assert numbers(again) == numbers(whole)
