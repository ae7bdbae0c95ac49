"""The validated form of a suite: testbeds, methods with their grids, metrics and seeds."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ByteSize, Field, PositiveFloat, SerializeAsAny
from pydantic_core import to_jsonable_python

from unmemorize.contracts.config import StrictConfig
from unmemorize.results.keys import canonical

Seed = Annotated[int, Field(ge=0)]

INLINE = "inline"
"""The executor that every run has: this very process."""


class TestbedEntry(StrictConfig):
    """One testbed of a suite: one point of its grid."""

    __test__ = False  # pytest: the name is a word of the domain, not a test class

    name: str
    """The table's name, with the grid's values where there is a grid: `noise[layers=2]`."""
    table: str
    """The table's name alone."""
    provider: str
    config: SerializeAsAny[StrictConfig]


class MethodEntry(StrictConfig):
    """One method of a suite, with every configuration of its grids."""

    name: str
    configs: tuple[SerializeAsAny[StrictConfig], ...]


class MetricEntry(StrictConfig):
    """One metric of a suite."""

    name: str
    config: SerializeAsAny[StrictConfig]


class RunSettings(StrictConfig):
    """How a suite is run; none of it can change a number, so none of it is in a cell's key."""

    executor: str | None = None
    """Where cells run: `inline` (this process), or a registered executor, which runs them in worker processes."""
    executor_config: dict[str, Any] = Field(default_factory=dict)
    """The executor's own settings."""
    deadline: PositiveFloat | None = None
    """Seconds that a cell may take once its testbed is loaded, or none."""
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    """Bytes that a worker process may hold (`4GiB`), or none."""
    device: str = "auto"
    """The device that models run on; `auto` takes an accelerator where there is one."""
    checkpointing: bool = False
    """Whether transformer blocks are computed again in backward passes, instead of kept: less memory, more time."""
    offload: bool = False
    """Whether scores, masks and copies of weights wait in main memory, and not beside the weights."""


class CallSettings(RunSettings):
    """What a call in Python says beside a suite or without one."""

    seed: Seed = 0
    """Decides everything random."""


class Suite(StrictConfig):
    """A suite, ready to be planned."""

    name: str
    description: str
    seeds: tuple[Seed, ...]
    memorization: str
    """Name of the headline memorization metric."""
    utility: str
    """Name of the headline utility metric."""
    run: RunSettings
    files: tuple[Path, ...]
    """Plugin files that the suite brings along."""
    testbeds: tuple[TestbedEntry, ...]
    methods: tuple[MethodEntry, ...]
    metrics: tuple[MetricEntry, ...]
    path: Path | None
    """The file it was read from, or none."""

    @property
    def source(self) -> str:
        """The words by which errors name this suite."""
        return described(self.name, self.path)


def described(name: str, path: Path | None) -> str:
    """Return the words by which errors name a suite."""
    return f"suite {name!r}" + (f" ({path})" if path is not None else "")


def settings(config: StrictConfig) -> dict[str, Any]:
    """Return every setting of a config, defaults filled in, in plain JSON types and a fixed order."""
    plain: dict[str, Any] = _plain(config)
    return plain


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one return for each kind of value
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        # The iteration order of a set of strings differs from process to process; a key must not.
        return sorted((_plain(item) for item in value), key=canonical)
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return value.as_posix() if isinstance(value, Path) else to_jsonable_python(value)
