"""The packages under plugins/contrib, installed as anybody's: listed, run, ranked; and their own tests pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from unmemorize import api
from unmemorize.suite import load_suite

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "plugins" / "contrib"
PACKAGES = sorted(path.parent for path in CONTRIB.glob("*/pyproject.toml"))
ENGINES = {"parsl": "unmemorize-parsl", "submitit": "unmemorize-submitit", "dask": "unmemorize-dask"}
METHODS = {
    "goldfish": "unmemorize-goldfish",
    "gradient_difference": "unmemorize-preference",
    "npo": "unmemorize-preference",
    "kfac": "unmemorize-kfac",
    "memfree": "unmemorize-memfree",
}

SUITE = """
name = "contrib"
description = "methods of four packages, on a tiny model"
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[metric.perplexity]
[method.goldfish]
context = 3
k = 2
[method.gradient_difference]
learning_rate = 0.003
[method.npo]
learning_rate = 0.003
[method.kfac]
layers = [0, 1]
matrices = ["up", "down"]
[method.memfree]
n = 4
[method.durable]
"""


def python(site: Path, *arguments: str, cwd: Path) -> str:
    """Run Python with the packages installed."""
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


def test_every_package_is_complete() -> None:
    assert {package.name for package in PACKAGES} == {*METHODS.values(), *ENGINES.values()}
    for package in PACKAGES:
        module = package.name.replace("-", "_")
        assert sorted(path.name for path in (package / "src").iterdir() if path.suffix) == [f"{module}.py"]
        assert (package / "README.md").read_text().startswith(f"# {package.name}\n")
        assert list((package / "tests").glob("test_*.py"))


def test_nobody_knows_them() -> None:
    """Neither the core, nor the built-ins, nor a suite of theirs."""
    names = re.compile("|".join(rf"[\"'.]{name}\b" for name in (*METHODS, *ENGINES)))
    for folder, pattern in (("harness", "*.py"), ("plugins/unmemorize_plugins", "*.py"), ("leaderboards", "*.toml")):
        for path in (ROOT / folder).rglob(pattern):
            assert not names.search(path.read_text()), path


@pytest.mark.parametrize(("kind", "entries"), [("methods", METHODS), ("executors", ENGINES)])
def test_they_are_listed_with_distribution_and_version(
    site: Path, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str, entries: dict[str, str]
) -> None:
    monkeypatch.syspath_prepend(site)
    lines = typed("list", kind, COLUMNS="200").stdout.splitlines()
    for name, distribution in entries.items():
        line = next(line for line in lines if line.startswith(f"{name} "))
        assert f"{distribution} 0.1.0" in line


def test_methods_are_run_and_ranked(site: Path, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    toy = str(ROOT / "tests" / "assets" / "toy.py")
    board = python(site, "-m", "unmemorize", "run", "suite.toml", "--plugin", toy, "--device", "cpu", cwd=tmp_path)
    (shard,) = (tmp_path / "unmemorize-results" / "contrib" / "records").iterdir()
    records = shard.read_text().splitlines()
    by_method = {row["method"]: row for row in map(json.loads, records)}
    for method, distribution in METHODS.items():
        row = by_method[method]
        assert row["status"] == "done", row["reason"]
        assert row["method_origin"]["distribution"] == distribution
        assert re.search(rf"^ +\d+ .* {method} ", board, re.MULTILINE), board
        assert f"{method} comes from {distribution} 0.1.0" in board
    assert by_method["memfree"]["edited"] == 0
    extractable = {
        row["set"]: row["after"] for row in by_method["memfree"]["values"] if row["metric"] == "extraction@4+8"
    }
    assert extractable["forget"] == 0.0


@pytest.mark.parametrize("name", ["quick", "production-offline"])
def test_the_suites_beside_them_are_valid(site: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not planned: the plan of a production suite looks at a model that need not be installed.
    monkeypatch.syspath_prepend(site)
    suite = load_suite(CONTRIB / f"{name}.toml", api.load_registry())
    assert set(METHODS) <= {entry.name for entry in suite.methods}


def own_tests(site: Path, packages: Iterable[str], name: str) -> str:
    files = [str(path) for package in sorted(set(packages)) for path in (CONTRIB / package / "tests").glob(name)]
    assert len(files) == len(set(packages))
    return python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", *files, cwd=ROOT)


@pytest.mark.parametrize(
    "packages", [METHODS.values(), *([each] for each in ENGINES.values())], ids=["methods", *ENGINES]
)
def test_their_own_tests_pass(site: Path, packages: Iterable[str]) -> None:
    assert " passed" in own_tests(site, packages, "test_[!c]*.py")


@pytest.mark.slow
def test_they_conform(site: Path) -> None:
    assert " passed" in own_tests(site, METHODS.values(), "test_conformance.py")
