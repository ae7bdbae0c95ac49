"""From `unmemorize new` to a row on the board, in an environment of its own, by the commands that the README gives."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = [
    "noise.main_sequences=300", "noise.extra_sequences=40", "noise.noised_sequences=10", "noise.recipe.epochs=2",
    "noise.holdout_sequences=10",
]  # fmt: skip
"""A quick testbed on which nothing is learned well, but everything is done."""


class Place:
    """A fresh virtual environment that sees this one's libraries, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=False)
        self.bin = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
        site = next((folder / "env").glob("**/site-packages"))
        (site / "libraries.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    def __call__(self, *command: str, cwd: str = ".") -> str:
        program, *arguments = command
        done = subprocess.run(
            [str(self.bin / "python"), "-m", program, *arguments],
            cwd=self.folder / cwd, capture_output=True, text=True, check=False,
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def new_to_checked(place: Place, *of_its_tests: str) -> None:
    place("unmemorize", "new", "method", "my_method")
    package = "unmemorize-my-method"
    place("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", f"./{package}")
    assert "my_method" in place("unmemorize", "list", "methods")
    place("unmemorize", "check", "my_method")
    place("pytest", "-q", *of_its_tests, cwd=package)


def row_of(place: Place) -> dict[str, object]:
    shards = sorted((place.folder / "results" / "records").iterdir())
    records = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    (mine,) = [record for record in records if record["method"] == "my_method"]
    assert mine["status"] == "done", mine["reason"]
    assert mine["method_origin"]["distribution"] == "unmemorize-my-method"
    return mine


def test_from_new_to_a_row(place: Place, typed: Callable[..., Any]) -> None:
    new_to_checked(place, "-k", "not llama and not gpt_neox")  # `check` has gone through all three
    shrunk = [part for setting in SMALL for part in ("--set", f"testbed.{setting}")]
    board = place("unmemorize", "run", "quick", "--methods", "my_method", *shrunk, "--results", "results")
    row_of(place)
    assert "my_method" in board
    assert "unmemorize-my-method 0.1.0" in place("unmemorize", "board", "results", "--format", "markdown")
    # Nothing of it stays behind: this environment has never seen the package.
    assert "my_method" not in typed("list", "methods").stdout


@pytest.mark.slow
def test_from_new_to_a_ranked_row_on_quick(place: Place) -> None:
    new_to_checked(place)
    board = place("unmemorize", "run", "quick", "--methods", "my_method,random_weights", "--results", "results")
    values = {(v["metric"], v["set"], v["part"]): v for v in row_of(place)["values"]}
    extraction = values["extraction@50+50", "forget", "all"]
    assert extraction["before"] > 90
    assert extraction["after"] < extraction["before"]
    assert "my_method" in board
