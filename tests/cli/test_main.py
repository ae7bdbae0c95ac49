"""The command line as a whole: help, near names, errors in three parts, and `run` from start to board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

TOY = Path(__file__).parents[1] / "assets" / "toy.py"
SUITE = f"""
name = "toys"
description = "tiny"
[plugins]
files = ["{TOY}"]
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[method.durable]
ratio = 0.05
"""


Command = Callable[..., Any]


@pytest.fixture
def unmemorize(typed: Command) -> Command:
    """Type a command where no third party's package is loaded."""
    return partial(typed, UNMEMORIZE_PLUGINS="none")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return path


def test_help_lists_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "unmemorize", "--help"], capture_output=True, text=True, check=True)
    for name in ("run", "plan", "list", "show", "board", "plugins"):
        assert f"\n  {name} " in done.stdout


def test_a_wrong_command_gets_the_nearest_right_one(unmemorize: Command) -> None:
    done = unmemorize("borad")
    assert done.status == 2
    assert "no command 'borad'; did you mean 'board'?" in done.stderr


def test_a_user_error_has_three_parts_and_no_traceback(unmemorize: Command, suite: Path) -> None:
    done = unmemorize("run", str(suite), "--set", "method.durable.raito=0.1")
    assert done.status == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert "raito" in lines[0]
    assert lines[1].startswith("  expected: ")
    assert "ratio" in lines[1]
    assert lines[2].startswith("  fix: ")
    assert "Traceback" not in done.stderr
    whole = unmemorize("show", "nothing", "--traceback")
    assert (whole.status, "Traceback" in whole.stderr) == (2, True)


def test_run_prints_the_board_and_says_where_the_records_are(unmemorize: Command, tmp_path: Path, suite: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unmemorize", "run", str(suite), "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"UNMEMORIZE_PLUGINS": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "durable" in done.stdout
    assert "2 run, 0 done before, 0 skipped, 0 failed. Records and board: unmemorize-results/toys" in done.stdout
    assert "1/2 done" in done.stderr
    again = unmemorize("run", str(suite), "--device", "cpu")
    table = [line for line in done.stdout.splitlines() if "run, " not in line]
    assert [line for line in again.stdout.splitlines() if "run, " not in line] == table
    assert "0 run, 2 done before" in again.stdout
    assert (tmp_path / "unmemorize-results/toys/board.md").read_text().startswith("## toys / toy")


def test_a_failed_cell_is_shown_and_the_status_says_so(unmemorize: Command, suite: Path) -> None:
    done = unmemorize("run", str(suite), "--methods", "toy_breaks", "--device", "cpu")
    assert done.status == 1
    assert "failed: toy_breaks" in done.stdout
    assert "RuntimeError: half-way" in done.stdout


def test_plan_counts_what_is_done_and_what_is_not(unmemorize: Command, suite: Path) -> None:
    unmemorize("run", str(suite), "--device", "cpu")
    done = unmemorize("plan", str(suite), "--methods", "durable,activations", "--json")
    assert done.status == 0, done.stderr
    cells = [(cell["method"], cell["status"]) for cell in json.loads(done.stdout)]
    assert cells == [("base", "cached"), ("durable", "cached"), ("activations", "to_run")]


LONG = "z" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "quick", "--results", LONG],
        ["run", "quick", "--results", "/proc/nowhere"],
        ["plan", LONG + ".toml"],
        ["plan", "~nobody-is-called-that/suite.toml"],
        ["show", LONG + ".toml"],
        ["list", "--plugin", LONG + ".py"],
        ["export", "quick", "--out", LONG],
        ["export", "quick", "--testbed", "noise", "--out", "/proc/nowhere"],
        ["new", "method", "mine", "--folder", LONG],
        ["new", "method", "mine", "--folder", "/proc/nowhere"],
        ["board", LONG],
        ["board", "quick", "--output", LONG],
        ["find", "model", "texts", "--out", LONG],
        ["find", "model", "texts", "--out", "/proc/nowhere/found.jsonl"],
        ["mitigate", "model", "--method", "durable", "--forget", "f", "--out", LONG],
        ["mitigate", "model", "--method", "durable", "--forget", "f", "--out", "/proc/nowhere"],
        ["run", "quick", "--device", "nowhere"],
        ["plan", "quick", "--probe", "--device", "nowhere"],
        ["export", "quick", "--out", "e", "--device", "nowhere"],
        ["export", "quick", "--out", "e", "--testbed", "nowhere"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_name_that_the_system_refuses_is_refused_before_any_work(unmemorize: Command, arguments: list[str]) -> None:
    done = unmemorize(*arguments)
    assert done.status == 2
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "expected", "fix"]
