"""Commands run as a user would, beside a plugin file and a suite of a third party."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

PLUGIN = '''
from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.contracts.method import Method
from unmemorize.evaluation.metric import Metric
from unmemorize.contracts.provider import ModelProvider


class PruneConfig(StrictConfig):
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Fraction that is removed."""
    layers: tuple[int, ...] | None = None
    """Blocks to edit."""


class Prune(Method):
    """Prunes [what] is left. It does so twice.

    More about it.
    """

    name, stage, Config, paper = "prune", "unlearn", PruneConfig, "Pruner 2024"
    needs = frozenset({"forget", "retain"})

    def apply(self, testbed, context): ...


class Echo(Metric):
    """Percent that is echoed."""

    name, kind, direction, range = "echo", "memorization", "lower", (0.0, 100.0)

    def measure(self, evaluation): ...


class Sense(Metric):
    """Percent that makes sense."""

    name, kind, direction, range = "sense", "utility", "higher", (0.0, 100.0)

    def measure(self, evaluation): ...


class Clay(ModelProvider):
    """Makes models of clay."""

    name = "clay"

    def load(self, context): ...


class Prunes(ModelProvider):
    """A provider with the name of a method."""

    name = "prune"

    def load(self, context): ...


@hookimpl
def register_methods():
    return [Prune]

@hookimpl
def register_metrics():
    return [Echo, Sense]

@hookimpl
def register_providers():
    return [Clay, Prunes]
'''

SUITE = """
name = "mine"
description = "What I compare."
seeds = [0, 1]
[plugins]
files = ["third_party.py"]
[testbed.noise]
provider = "clay"
[method.prune]
ratio = [0.1, 0.2]
[metric.echo]
[metric.sense]
"""

Command = Callable[..., Result]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `third_party.py` and `mine.toml`, in which commands run; no third party's package is loaded."""
    (tmp_path / "third_party.py").write_text(PLUGIN)
    (tmp_path / "mine.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNMEMORIZE_PLUGINS", "none")
    return tmp_path


@pytest.fixture
def run_command(workplace: Path) -> Command:
    """Run one command: `run_command("list", "--json")`; an error of ours is raised."""

    def run(name: str, *arguments: str) -> Result:
        command = importlib.import_module(f"unmemorize.cli.{name}").command
        result = CliRunner().invoke(command, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def with_broken_plugin(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution whose plugin does not import."""
    info = workplace / "site" / "shaky-0.3.dist-info"
    info.mkdir(parents=True)
    (workplace / "site" / "shaky.py").write_text("raise RuntimeError('boom')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[unmemorize]\nshaky = shaky\n")
    monkeypatch.setenv("UNMEMORIZE_PLUGINS", "shaky")
    monkeypatch.syspath_prepend(str(workplace / "site"))
