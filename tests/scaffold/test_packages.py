"""New packages are whole: clean, installable, with tests that pass; and a name that cannot be is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from unmemorize import ConfigError, DataError
from unmemorize.scaffold import KINDS, STAGES, PackagePlan, write_package

ALL = [PackagePlan("method", f"try_{stage}", stage) for stage in STAGES] + [
    PackagePlan("metric", "try_metric"),
    PackagePlan("provider", "try_provider"),
]


@pytest.fixture(params=ALL, ids=[f"{plan.kind}-{plan.stage}" for plan in ALL])
def plan(request: pytest.FixtureRequest) -> PackagePlan:
    return request.param


def test_there_is_a_template_for_everything() -> None:
    assert {plan.kind for plan in ALL} == set(KINDS)


def test_their_own_tests_pass(tmp_path: Path) -> None:
    for plan in ALL:
        write_package(plan, tmp_path / plan.distribution)
    folders = [str(tmp_path / plan.distribution) for plan in ALL]
    paths = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *folders],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout


def test_it_is_clean_and_complete(plan: PackagePlan, tmp_path: Path) -> None:
    written = write_package(plan, tmp_path / "new")
    assert all("{{" not in path.read_text().replace("${{", "") for path in written)
    project = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["unmemorize"] == {plan.name: plan.module}
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed; pip install -e '.[dev]'")
    done = subprocess.run(
        [ruff, "check", "--isolated", "--select", "E,F,I,UP,B", "--line-length", "120", "."],
        cwd=tmp_path / "new", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("base", "my_method"),
        ("MyMethod", "my_method"),
        ("my-method", "my_method"),
        ("2fast", "fast"),
        ("class", "my_method"),
        ("é", "my_method"),
    ],
)
def test_a_name_that_cannot_be_gets_a_better_one(name: str, better: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_package(PackagePlan("method", name), tmp_path / "new")
    assert caught.value.fix.endswith(f"new method {better}")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        write_package(PackagePlan("method", "try_it"), tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == "mine"


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert write_package(PackagePlan("metric", "try_it"), tmp_path / "new")
