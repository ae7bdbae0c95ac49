"""The wheel holds what the checkout holds: every suite by rule, and the commands find them there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _suites(folder: Path, *path: Path) -> dict[str, str]:
    """The suites that the code in `path` lists, with their descriptions."""
    code = "import unmemorize, sys; from unmemorize.cli import group; print(unmemorize.__file__, file=sys.stderr); "
    done = subprocess.run(
        [sys.executable, "-c", code + "group(['list', 'suites', '--json'])"],
        cwd=folder, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "UNMEMORIZE_PLUGINS": "none"},
    )  # fmt: skip
    assert done.stderr.startswith(str(path[0]))
    return {row["name"]: row["summary"] for row in json.loads(done.stdout)["suites"]}


def test_an_installed_wheel_lists_the_suites_of_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    listed = _suites(tmp_path, tmp_path / "site")
    assert listed == _suites(tmp_path, ROOT / "harness", ROOT / "plugins")
    assert len(listed) == len(list(ROOT.glob("leaderboards/*/suite.toml")))
