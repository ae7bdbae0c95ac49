from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from unmemorize.errors import ConfigError
from unmemorize.results.record import PluginOrigin, Record, Value
from unmemorize.results.store import Store

Command = Callable[..., Result]


def record(key: str, method: str, seconds: float | None, status: str = "done") -> Record:
    origin = PluginOrigin(name="clay", plugin="p", distribution="d", version="1")
    ends: dict[str, None] = dict.fromkeys(("before_low", "before_high", "after_low", "after_high"))
    values = [
        Value(metric="echo", kind="memorization", direction="lower", set="forget", part="all", count=1,
              before=1.0, after=1.0, **ends)
    ]  # fmt: skip
    empty: dict[str, Any] = {
        "provider_config": {}, "fingerprint": {}, "method_config": {}, "stage": "-",
        "needs": [], "metrics": {}, "metric_origins": [], "values": values if status == "done" else [],
        "curve": [], "seconds": {}, "peak_memory": None, "extra_memory": None, "parameters": None,
        "edited": None, "flags": [],
        "notes": {}, "testbed_facts": {}, "data_digest": None, "environment": {},
        "reason": None, "traceback": None,
    }  # fmt: skip
    return Record(
        key=key, key_version=1, status=status, finished_at="2025-03-01T12:00:00+00:00", suite="mine",
        testbed="noise", provider=origin, method=method, seed=0, memorization="echo", utility="sense",
        total_seconds=seconds, method_origin=None if method == "base" else origin, **empty,
    )  # fmt: skip


def cells(run_command: Command, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run_command("plan", "mine.toml", "--json", *arguments).output)
    return found


def test_without_records_everything_is_to_run(run_command: Command, workplace: Path) -> None:
    result = run_command("plan", "mine.toml")
    lines = result.output.splitlines()
    assert lines[2].split() == ["noise", "base", "0", "2", "?"]
    assert lines[3].split() == ["noise", "prune", "0", "4", "?"]
    assert "6 cells: 0 cached, 6 to run; no earlier record says how long that takes" in result.output
    assert lines[-1] == "Results: unmemorize-results/mine"
    assert not (workplace / "unmemorize-results").exists()


def test_done_cells_are_cached_and_tell_how_long_the_rest_takes(run_command: Command, workplace: Path) -> None:
    planned = cells(run_command)
    store = Store(workplace / "unmemorize-results" / "mine")
    store.shard().append(record(planned[0]["key"], "base", None))
    prunes = [cell["key"] for cell in planned if cell["method"] == "prune"]
    store.shard().append(record(prunes[0], "prune", 20.0))
    store.shard().append(record(prunes[1], "prune", 40.0))
    store.shard().append(record(prunes[2], "prune", 9000.0, status="failed"))
    result = run_command("plan", "mine.toml")
    assert result.output.splitlines()[2].split() == ["noise", "base", "1", "1", "?"]
    assert result.output.splitlines()[3].split() == ["noise", "prune", "2", "2", "1", "min", "0", "s"]
    assert "6 cells: 3 cached, 3 to run, about 1 min 0 s + 1 x ? of method time" in result.output
    assert [cell["status"] for cell in cells(run_command)].count("cached") == 3


def test_when_all_is_done_no_time_is_needed(run_command: Command, workplace: Path) -> None:
    store = Store(workplace / "elsewhere")
    for cell in cells(run_command):
        store.shard().append(record(cell["key"], cell["method"], 1.0))
    output = run_command("plan", "mine.toml", "--results", "elsewhere").output
    assert "6 cells: 6 cached, 0 to run\nResults: elsewhere" in output


def test_every_option_reaches_the_suite(run_command: Command) -> None:
    found = cells(run_command, "--set", "method.prune.ratio=0.3", "--seeds", "5,6,7", "--testbeds", "noise")
    assert [(cell["method"], cell["seed"], cell["config"].get("ratio")) for cell in found] == [
        (method, seed, ratio) for seed in (5, 6, 7) for method, ratio in (("base", None), ("prune", 0.3))
    ]
    assert {cell["method"] for cell in cells(run_command, "--methods", "base")} == {"base"}
    assert len(cells(run_command, "--metrics", "sense,echo", "--plugin", "third_party.py")) == 6


def test_a_wrong_override_is_an_error(run_command: Command) -> None:
    with pytest.raises(ConfigError, match="the suite has no such setting"):
        run_command("plan", "mine.toml", "--set", "method.prune.raito=1")


def test_wrong_seeds_are_a_usage_error(run_command: Command) -> None:
    result = run_command("plan", "mine.toml", "--seeds", "a")
    assert result.exit_code == 2
    assert "'a' is not a list of seeds; write e.g. 0,1,2" in result.output


TOY_SUITE = """
name = "toys"
description = "What a probe says."
[plugins]
files = ["toy.py"]
[testbed.toy]
provider = "toy"
[method.durable]
ratio = [0.01, 0.05]
[method.toy_rewrites]
[method.toy_nothing]
[metric.extraction]
[metric.accuracy]
[run]
device = "cpu"
"""


@pytest.fixture
def toys(workplace: Path) -> None:
    """A suite whose testbed loads at once, although its provider can train."""
    toy = (Path(__file__).parents[1] / "assets" / "toy.py").read_text()
    ready = "    def ready(self, context):\n        return True\n\n    def load(self, context):"
    (workplace / "toy.py").write_text(toy.replace("    def load(self, context):", ready, 1))
    (workplace / "toys.toml").write_text(TOY_SUITE)


def test_a_probe_says_seconds_memory_and_what_would_be_skipped(run_command: Command, toys: None) -> None:
    lines = run_command("plan", "toys.toml", "--probe").output.splitlines()
    assert lines[0] == "estimates on cpu, from one timed step on each testbed"
    assert lines[1].split() == ["testbed", "method", "cells", "each", "about", "memory", "free", "remark"]
    assert lines[2].split()[:3] == ["toy", "durable", "2"]
    assert "MiB" in lines[2]
    assert "GiB" in lines[2]
    assert "skipped: it needs the clean set, and this testbed has none" in lines[3]
    assert "the method does not say what it costs" in lines[4]
    assert lines[-1].startswith("2 of 4 cells would run, about ")


def test_a_probe_in_json_has_one_object_for_each_cell(run_command: Command, toys: None) -> None:
    found = json.loads(run_command("plan", "toys.toml", "--probe", "--json", "--device", "cpu").output)
    assert [(one["method"], one["fits"]) for one in found] == [
        ("durable", True), ("durable", True), ("toy_rewrites", None), ("toy_nothing", None),
    ]  # fmt: skip
    assert found[0]["seconds"] > 0
    assert found[0]["device_bytes"] > 0


def test_a_probe_does_not_train(run_command: Command, toys: None, workplace: Path) -> None:
    text = (workplace / "toy.py").read_text()
    (workplace / "toy.py").write_text(text.replace("return True", "return False"))
    output = run_command("plan", "toys.toml", "--probe").output
    assert "the testbed must be trained first: `unmemorize run` does it, and keeps it" in output
    assert "0 of 4 cells would run" in output
