"""A registry of inline plugins with settings of every shape that suites write down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.executor import ExecutorFactory
from unmemorize.contracts.method import Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.evaluation.metric import Metric
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import hookimpl


class Recipe(StrictConfig):
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the data."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's betas."""


class ToyConfig(StrictConfig):
    size: Literal["quick", "paper"] = "quick"
    """How large it is."""
    layers: Annotated[int, Field(ge=1, le=16)] = 2
    """Number of transformer blocks."""
    recipe: Recipe = Recipe()
    """How it is trained."""


class Toy(ModelProvider):
    """Makes toys. They are small."""

    name, Config = "toy", ToyConfig

    def load(self, context: Any) -> Any: ...


class CutConfig(StrictConfig):
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Fraction that is removed."""
    layers: tuple[int, ...] | None = None
    """Blocks to edit, or none for all."""
    scope: Literal["layer", "global"] = "layer"
    """Where the ratio is taken."""


class Cut(Method):
    """Cuts neurons."""

    name, stage, Config, paper = "cut", "unlearn", CutConfig, "Cutter 2024"

    def apply(self, testbed: Any, context: Any) -> None: ...


class TuneConfig(StrictConfig):
    epochs: int = 5
    """Passes."""
    low: float = 0.0
    """Lower end."""
    high: float = 1.0
    """Upper end."""

    @model_validator(mode="after")
    def _ordered(self) -> TuneConfig:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class Tune(Method):
    """Tunes."""

    name, stage, Config = "tune", "finetune", TuneConfig

    def apply(self, testbed: Any, context: Any) -> None: ...


class WindowConfig(StrictConfig):
    prompt: int = 50
    """Tokens shown."""
    lengths: tuple[int, ...] = (50,)
    """Tokens extracted."""


class Regurgitated(Metric):
    """Percent extracted."""

    name, kind, direction, range, Config = "extracted", "memorization", "lower", (0.0, 100.0), WindowConfig

    def measure(self, evaluation: Any) -> Any: ...


class Right(Metric):
    """Percent right."""

    name, kind, direction, range = "right", "utility", "higher", (0.0, 100.0)

    def measure(self, evaluation: Any) -> Any: ...


class Surprise(Metric):
    """Surprise."""

    name, kind, direction, range = "surprise", "utility", "lower", (1.0, float("inf"))

    def measure(self, evaluation: Any) -> Any: ...


class WorkersConfig(StrictConfig):
    workers: Annotated[int, Field(ge=1)] = 2
    """Number of processes."""
    file: Path | None = None
    """What else there is to say about them."""


class Workers(ExecutorFactory):
    """Processes."""

    name, Config = "workers", WorkersConfig

    def create(self) -> Any: ...


@pytest.fixture
def registry() -> Registry:
    """The inline plugins, registered."""
    made = Registry()
    made.add(
        SimpleNamespace(
            register_methods=hookimpl(lambda: [Cut, Tune]),
            register_metrics=hookimpl(lambda: [Regurgitated, Right, Surprise]),
            register_providers=hookimpl(lambda: [Toy]),
            register_executors=hookimpl(lambda: [Workers]),
        ),
        name="inline",
    )
    return made


BASE = """
name = "mine"
seeds = [0]
[testbed.noise]
provider = "toy"
[metric.extracted]
[metric.right]
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write a suite file: a sound beginning, and what a test adds."""

    def write(text: str, start: str = BASE) -> Path:
        path = tmp_path / "suite.toml"
        path.write_text(start + text, encoding="utf-8")
        return path

    return write
