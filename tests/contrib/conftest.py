"""The packages under plugins/contrib, installed beside this environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONTRIB = Path(__file__).parents[2] / "plugins" / "contrib"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed all of them."""
    site = tmp_path_factory.mktemp("contrib") / "site"
    packages = sorted(str(path.parent) for path in CONTRIB.glob("*/pyproject.toml"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--target", str(site), *packages],
        check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )  # fmt: skip
    return site
