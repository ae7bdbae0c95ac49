"""The top of a suite file: everything but its testbeds, methods and metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from unmemorize.contracts.config import StrictConfig
from unmemorize.suite.model import RunSettings, Seed


class PluginSettings(StrictConfig):
    """What a suite brings along."""

    files: tuple[str, ...] = ()
    """Plugin files, relative to the suite file."""


class ScoreSettings(StrictConfig):
    """The headline metrics, from which the score is made."""

    memorization: str | None = None
    """A memorization metric of the suite; the first one listed where none is given."""
    utility: str | None = None
    """A utility metric of the suite; the first one listed where none is given."""


class Header(StrictConfig):
    """The top of a suite file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The name by which the suite is known."""
    description: str = ""
    """What the suite compares, in a sentence or two."""
    seeds: tuple[Seed, ...] = (0,)
    """Every testbed and method runs once with each."""
    score: ScoreSettings = ScoreSettings()
    """The headline metrics."""
    run: RunSettings = RunSettings()
    """How the suite is run."""
    plugins: PluginSettings = PluginSettings()
    """What the suite brings along."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("seeds are a list of at least one, each only once")
        return value
