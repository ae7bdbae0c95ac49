"""Options that mean the same on every command that has them; JSON that nobody else prints into; Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from unmemorize import api
from unmemorize.cli import COMMANDS, group

TOY = Path(__file__).parents[1] / "assets" / "toy.py"
SUITE = """
name = "toys"
[plugins]
files = ["noisy.py"]
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[method.durable]
[method.noisy]
"""
NOISE = """
import os
from unmemorize import Method, hookimpl
print("loading")
os.system("echo a process of its own")

class Noisy(Method):
    "Prints."
    name, stage = "noisy", "unlearn"
    def apply(self, testbed, context):
        print("acting")
        os.system("echo a process of its own")
        next(testbed.model.parameters()).data.mul_(2)

@hookimpl
def register_methods():
    return [Noisy]
"""

ALL = {"--json", "--traceback"}
WITHOUT = {
    "--quiet": {
        "plan": "it prints its table only",
        "list": "it prints its tables only",
        "show": "it prints one page only",
        "board": "its notes say which numbers disagree",
        "new": "it prints what it wrote only",
        "plugins": "it prints its table only",
    },
    "--verbose": {
        "list": "it opens no model, and nothing else logs",
        "show": "it opens no model, and nothing else logs",
        "board": "it opens no model, and nothing else logs",
        "new": "it opens no model, and nothing else logs",
        "plugins": "it opens no model, and nothing else logs",
    },
    "--threads": {
        "list": "it computes nothing",
        "show": "it computes nothing",
        "new": "it computes nothing",
        "plugins": "it computes nothing",
        "board": "it computes for a second",
        "check": "its rules run on one thread, so that every machine sees the same",
    },
}
"""Which command has no use for an option that the others share, and why."""


def _options(name: str) -> set[str]:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return {spelling for parameter in command.params for spelling in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_that_make_sense(name: str) -> None:
    expected = ALL | {option for option, exceptions in WITHOUT.items() if name not in exceptions}
    assert _options(name) & (ALL | WITHOUT.keys()) == expected
    assert {"-q": "--quiet", "-v": "--verbose"}.keys() & _options(name) == {
        short for short, long in {"-q": "--quiet", "-v": "--verbose"}.items() if long in expected
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noisy.py").write_text(NOISE)
    (tmp_path / "toys.toml").write_text(SUITE.replace('noisy.py"', f'noisy.py", "{TOY}"'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNMEMORIZE_PLUGINS", "none")
    return tmp_path


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(group, list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--plugin", "noisy.py"],
        ["show", "noisy", "--plugin", "noisy.py"],
        ["plugins", "--plugin", "noisy.py"],
        ["plan", "toys.toml"],
        ["plan", "toys.toml", "--probe", "--device", "cpu"],
        ["export", "toys.toml", "--plugin", str(TOY), "--quiet", "--device", "cpu"],
        ["check", "noisy", "--plugin", "noisy.py", "--architecture", "gpt2"],
        ["new", "method", "mine"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.usefixtures("place")
def test_standard_output_is_json_and_nothing_else(arguments: list[str]) -> None:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0 or arguments[0] == "check", result.output
    assert json.loads(result.stdout)


@pytest.mark.usefixtures("place")
def test_a_run_and_its_board_as_json() -> None:
    result = _run("run", "toys.toml", "--device", "cpu", "--quiet", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["done"], shown["failed"], shown["folder"]) == (3, 0, "unmemorize-results/toys")
    assert {row["method"] for row in shown["board"]} == {"base", "durable", "noisy"}
    assert "acting" in result.stderr
    assert json.loads(_run("board", "toys", "--json").stdout) == shown["board"]


def test_in_a_process_of_its_own_child_processes_cannot_print_into_it_either(place: Path) -> None:
    arguments = ["list", "methods", "--json", "--plugin", "noisy.py"]
    done = subprocess.run([sys.executable, "-m", "unmemorize", *arguments], capture_output=True, text=True, check=True)
    assert "noisy" in [row["name"] for row in json.loads(done.stdout)["methods"]]
    assert "loading" in done.stderr
    assert "a process of its own" in done.stderr


@pytest.mark.usefixtures("place")
def test_threads_reach_libraries_and_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    before = torch.get_num_threads()
    try:
        assert _run("plan", "toys.toml", "--threads", "3").exit_code == 0
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (3, "3")
    finally:
        torch.set_num_threads(before)
    assert "is not in the range" in _run("plan", "toys.toml", "--threads", "0").stderr


@pytest.mark.usefixtures("place")
def test_verbose_shows_what_libraries_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "warning")
    monkeypatch.setenv("DATASETS_VERBOSITY", "warning")
    configured: list[int] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: configured.append(settings["level"]))
    assert _run("plan", "toys.toml", "-v").exit_code == 0
    assert configured == [logging.INFO]
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "warning"  # the user's own wish stands


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("mitigate", ["model", "--method", "durable", "--forget", "f.jsonl", "--out", "out"],
         "out was not written, and the model is as it was; the same command starts again"),
        ("find", ["model", "texts.txt"],
         "what was searched is kept in found.jsonl.state; the same command goes on from there"),
        ("export", ["toys.toml", "--plugin", str(TOY)],
         "models that were trained are kept in the cache; the same command goes on"),
        ("run", ["toys.toml"],
         "0 done cells are kept in unmemorize-results/toys; the same command goes on with the others"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("place")
def test_ctrl_c_says_what_was_kept_and_how_to_go_on(
    verb: str, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, verb, interrupted)
    if verb == "mitigate":
        monkeypatch.setattr(importlib.import_module("unmemorize.cli.mitigate"), "_mitigated", interrupted)
    result = _run(verb, *arguments, "--quiet")
    assert result.exit_code == 130
    assert result.stderr.removeprefix("loading\n") == f"\ninterrupted: {said}\n"


@pytest.mark.usefixtures("place")
def test_ctrl_c_while_plugins_are_checked_or_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from unmemorize.testing.checking import Examination

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Examination, "verdict", interrupted)
    result = _run("check", "durable", "activations")
    assert result.exit_code == 130
    assert result.stderr == "\ninterrupted: 0 of 2 are checked; the same command starts again\n"
    monkeypatch.setattr("unmemorize.registry.Registry.load", interrupted)
    result = _run("list")
    assert result.exit_code == 130
    assert result.stderr == "\ninterrupted: nothing was changed; the same command starts again\n"


@pytest.mark.parametrize(
    ("number", "status", "executor"),
    [(signal.SIGINT, 130, []), (signal.SIGTERM, 143, []), (signal.SIGINT, 130, ["--executor", "processes"])],
    ids=["here", "terminated", "processes"],
)
def test_a_run_that_is_interrupted_goes_on(place: Path, number: int, status: int, executor: list[str]) -> None:
    waiting = NOISE.replace('print("acting")', 'open("acting", "w").close(); import time; time.sleep(300)')
    (place / "noisy.py").write_text(waiting)
    command = [sys.executable, "-m", "unmemorize", "run", "toys.toml", "--device", "cpu", *executor]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, **pipes)
    try:
        end = time.monotonic() + 120
        while not (place / "acting").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        os.killpg(process.pid, number)  # as a terminal does it: every process of the group
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == status, said
    assert not (place / "unmemorize-results" / "toys" / "claims").exists()
    assert said.splitlines()[-1] == (
        "interrupted: 2 done cells are kept in unmemorize-results/toys; the same command goes on with the others"
    )
    assert "Traceback" not in said
    (place / "noisy.py").write_text(NOISE)
    shown = json.loads(_run("run", "toys.toml", "--device", "cpu", "--quiet", "--json").stdout)
    assert (shown["cached"], shown["done"]) == (2, 1)
