"""A third party's package: one file, one entry point, installed with pip; and a broken one beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., str]

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
[project.entry-points.unmemorize]
{entry} = "{module}"
[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

SUITE = """
name = "strange"
description = "a third party's provider, method and metric beside the built-in ones"
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[metric.toy_first_token]
[method.durable]
ratio = 0.05
[method.toy_magnitude]
"""


def package(folder: Path, name: str, version: str, module: str, source: str) -> Path:
    folder.mkdir()
    (folder / f"{module}.py").write_text(source)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name, version=version, entry=module, module=module))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed both packages."""
    folder = tmp_path_factory.mktemp("third parties")
    toy = (Path(__file__).parents[1] / "assets" / "toy.py").read_text()
    sources = [
        package(folder / "good", "unmemorize-toy", "3.2.1", "unmemorize_toy", toy),
        package(
            folder / "bad",
            "unmemorize-broken",
            "0.0.9",
            "unmemorize_broken",
            "import a_module_that_is_not_there\n",
        ),
    ]
    site = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(site), *map(str, sources)],
        check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    return site


def python_path(site: Path) -> str:
    """Where a process of its own looks for modules."""
    return os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def unmemorize(site: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Type a command where the third parties' packages are installed; return what is printed."""
    monkeypatch.syspath_prepend(site)

    def run(*arguments: str, status: int = 0, **environment: str) -> str:
        done = typed(*arguments, COLUMNS="150", **environment)
        assert done.status == status, done.stderr + done.stdout
        return done.stdout + done.stderr

    return run


def test_list_shows_what_the_third_parties_register_and_who_is_broken(unmemorize: Command) -> None:
    text = unmemorize("list")
    for name in ("toy_magnitude", "toy_first_token", "toy", "balanced_subnet", "tinymem"):
        assert name in text
    assert "unmemorize-toy" in text
    assert "unmemorize-broken" in text


def test_plugins_says_what_is_broken_and_how_to_mend_it(unmemorize: Command) -> None:
    text = unmemorize("plugins")
    assert "unmemorize-broken" in text
    assert "0.0.9" in text
    assert "a_module_that_is_not_there" in text
    assert "3.2.1" in text


def test_show_describes_a_third_parties_method_with_its_settings(unmemorize: Command) -> None:
    text = unmemorize("show", "toy_magnitude")
    assert "Remove the largest weights." in text
    assert "ratio" in text
    assert "Share of the weights to remove." in text
    assert "unmemorize-toy 3.2.1" in text.replace("\n", " ")


def test_a_third_parties_method_is_run_and_ranked(unmemorize: Command, site: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "unmemorize", "run", "suite.toml", "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": python_path(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert "toy_magnitude" in done.stdout
    (shard,) = (tmp_path / "unmemorize-results/strange/records").iterdir()
    rows = [json.loads(line) for line in shard.read_text().splitlines()]
    by_method = {row["method"]: row for row in rows}
    assert {row["status"] for row in rows} == {"done"}
    origin = by_method["toy_magnitude"]["method_origin"]
    assert (origin["distribution"], origin["version"]) == ("unmemorize-toy", "3.2.1")
    assert any(value["metric"] == "toy_first_token" for value in by_method["durable"]["values"])
    board = unmemorize("board", "strange")
    assert "toy_magnitude" in board
    assert "unmemorize-toy" in board


def test_loading_can_be_restricted(unmemorize: Command) -> None:
    none = unmemorize("list", "methods", UNMEMORIZE_PLUGINS="none")
    assert "toy_magnitude" not in none
    assert "durable" in none
    some = unmemorize("list", "methods", UNMEMORIZE_PLUGINS="unmemorize_toy")
    assert "toy_magnitude" in some
    assert "unmemorize-broken" not in some


def test_two_origins_of_one_name_are_refused_by_name(unmemorize: Command, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "assets" / "toy.py", tmp_path / "second.py")
    (tmp_path / "suite.toml").write_text(SUITE)
    text = unmemorize("plan", "suite.toml", "--plugin", "second.py", status=2)
    assert "is registered by" in text
    assert "second.py" in text
    assert "unmemorize-toy" in text
