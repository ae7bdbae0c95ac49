"""How long the commands that only look take, beside a bare `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

COMMANDS = {"list": ["list"], "plugins": ["plugins"], "show": ["show", "balanced_subnet"], "plan": ["plan", "quick"]}


def _process(benchmark: BenchmarkFixture, folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "UNMEMORIZE_PLUGINS": "none"}
    settings = {"cwd": folder, "check": True, "capture_output": True, "env": environment}
    benchmark.pedantic(subprocess.run, args=([sys.executable, *arguments],), kwargs=settings, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="commands")
def test_bare_import_of_torch(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    _process(benchmark, tmp_path, "-c", "import torch")


@pytest.mark.benchmark(group="commands")
@pytest.mark.parametrize("command", COMMANDS)
def test_command(benchmark: BenchmarkFixture, tmp_path: Path, command: str) -> None:
    _process(benchmark, tmp_path, "-m", "unmemorize", *COMMANDS[command])
