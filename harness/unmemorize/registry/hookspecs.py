"""The eight hooks of unmemorize: six that register, two that tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.contracts.layout import Layout
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.evaluation.metric import Metric

PROJECT = "unmemorize"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as a hook: write `@hookimpl` above it."""


@dataclass(frozen=True, slots=True)
class CellEvent:
    """What a tracker is told about one cell."""

    key: str
    """The hash of everything that can change the cell's numbers."""
    suite: str
    """Name of the suite."""
    testbed: str
    """Name of the testbed in the suite."""
    method: str
    """Name of the method; `base` for the unedited model."""
    seed: int
    """The seed of testbed and method."""
    index: int
    """Number of this cell in the run, from 0."""
    total: int
    """Number of cells in the run."""
    status: Literal["started", "done", "failed", "skipped"] = "started"
    """How the cell has ended, once it has."""
    record: dict[str, Any] | None = None
    """The whole record, once the cell has ended."""


@hookspec
def register_methods() -> Iterable[type[Method]]:  # type: ignore[empty-body]
    """Return the method classes of this plugin."""


@hookspec
def register_metrics() -> Iterable[type[Metric]]:  # type: ignore[empty-body]
    """Return the metric classes of this plugin."""


@hookspec
def register_providers() -> Iterable[type[ModelProvider]]:  # type: ignore[empty-body]
    """Return the model-provider classes of this plugin."""


@hookspec
def register_layouts() -> Iterable[Layout]:  # type: ignore[empty-body]
    """Return the layouts of this plugin: rows that say where the MLPs of an architecture are."""


@hookspec
def register_executors() -> Iterable[type[ExecutorFactory]]:  # type: ignore[empty-body]
    """Return the executor factories of this plugin: where cells run."""


@hookspec
def register_suites() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return the paths of suite files; a suite is known by the `name` in its file."""


@hookspec
def cell_started(event: CellEvent) -> None:
    """Do something when a cell starts (progress bars, experiment trackers)."""


@hookspec
def cell_finished(event: CellEvent) -> None:
    """Do something when a cell has ended and its record is safe on disk."""
