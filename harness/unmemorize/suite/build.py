"""Builds the validated parts of a suite from its raw tables and the registry."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import ConfigError, nearest
from unmemorize.registry.manager import Registry
from unmemorize.results.keys import canonical
from unmemorize.suite.error_messages import Place, validated
from unmemorize.suite.grid import Point, expand, size
from unmemorize.suite.header import Header
from unmemorize.suite.model import (
    INLINE,
    MethodEntry,
    MetricEntry,
    RunSettings,
    TestbedEntry,
    settings,
)
from unmemorize.suite.overrides import Paths
from unmemorize.suite.tables import Raw, grids

MOST = 1_000_000
"""Cells of a suite, at most."""

EXECUTOR = "UNMEMORIZE_EXECUTOR"
"""The environment variable that names the executor of runs that name none."""


def build_testbeds(raw: Raw, registry: Registry, source: str) -> tuple[TestbedEntry, ...]:
    """Return every testbed, one for each point of its grid.

    Raises:
        ConfigError: no testbed at all, or a wrong setting.
        UnknownNameError: a provider that nothing registered.
    """
    entries = tuple(entry for table in raw["testbed"] for entry in _testbed(raw, table, registry, source))
    if not entries:
        names = registry.names("provider")
        raise ConfigError(
            f"{source} lists no testbed",
            expected=f"at least one, made by a provider: {', '.join(names) or 'none is registered'}",
            fix=f'write [testbed.mine] and below it provider = "{names[0] if names else "NAME"}"',
        )
    return entries


def _testbed(raw: Raw, table: str, registry: Registry, source: str) -> Iterator[TestbedEntry]:
    place = Place(source, f"testbed.{table}")
    provider = provider_of(raw, table, registry, source)
    config = registry.get("provider", provider, where=source).Config
    values = {key: value for key, value in raw["testbed"][table].items() if key != "provider"}
    for point in _points(values, config, place):
        yield TestbedEntry(
            name=table + point.suffix(),
            table=table,
            provider=provider,
            config=validated(config, point.values, place._replace(shown=provider)),
        )


def provider_of(raw: Raw, table: str, registry: Registry, source: str) -> str:
    """Return the name of a testbed's provider.

    Raises:
        ConfigError: the table names none.
    """
    provider = raw["testbed"][table].get("provider")
    if not isinstance(provider, str):
        names = ", ".join(registry.names("provider")) or "none is registered"
        raise ConfigError(
            f"{source}: testbed.{table}.provider " + ("is missing" if provider is None else "is not a name"),
            expected=f"the name of a provider: {names}",
            fix=f'write provider = "NAME" under [testbed.{table}]; `unmemorize list providers` shows them',
        )
    return provider


def build_methods(raw: Raw, registry: Registry, source: str) -> tuple[MethodEntry, ...]:
    """Return every method with the configurations of its grids, each once, in the order of the file.

    Raises:
        ConfigError: a wrong setting.
        UnknownNameError: a method that nothing registered.
    """
    return tuple(MethodEntry(name=name, configs=tuple(_configs(raw, name, registry, source))) for name in raw["method"])


def _configs(raw: Raw, name: str, registry: Registry, source: str) -> list[StrictConfig]:
    config = registry.get("method", name, where=source).Config
    tables = grids(raw["method"][name])
    found: dict[str, StrictConfig] = {}
    for number, table in enumerate(tables):
        item = f"[{number}]" if len(tables) > 1 else ""
        place = Place(source, f"method.{name}{item}", shown=name)
        for point in _points(table, config, place):
            one = validated(config, point.values, place)
            found.setdefault(canonical(settings(one)), one)
    return list(found.values())


def build_metrics(raw: Raw, registry: Registry, source: str) -> tuple[MetricEntry, ...]:
    """Return every metric with its settings; it has no grid, since every cell is measured by all metrics.

    Raises:
        ConfigError: a wrong setting.
        UnknownNameError: a metric that nothing registered.
    """
    entries = []
    for name, table in raw["metric"].items():
        config = registry.get("metric", name, where=source).Config
        place = Place(source, f"metric.{name}", shown=name)
        entries.append(MetricEntry(name=name, config=validated(config, table, place)))
    return tuple(entries)


def _points(table: Raw, config: type[StrictConfig], place: Place) -> list[Point]:
    count = size(table, config)
    check_count(count, "configurations", f"{place.source}: the grid of {place.path}", place.look)
    points = list(expand(table, config))
    if not points:
        raise ConfigError(
            f"{place.source}: {place.path} has an empty list, and a grid over nothing has no configuration",
            expected="at least one value in every list",
            fix=f"give it a value, or remove it to take the default; {place.look}",
        )
    return points


def check_count(count: int, of: str, where: str, look: str) -> None:
    """Refuse more than `MOST` of something: nobody runs so many, and their plan alone takes the memory there is.

    Raises:
        ConfigError: there are more.
    """
    if count > MOST:
        raise ConfigError(
            f"{where} has {count:,} {of}",
            expected=f"at most {MOST:,}",
            fix=f"give the lists fewer values, or `unmemorize run` (or plan) a part of them with --methods; {look}",
        )


def headline(
    kind: Literal["memorization", "utility"],
    header: Header,
    metrics: Sequence[MetricEntry],
    registry: Registry,
    source: str,
) -> str:
    """Return the headline metric of a kind: the one under [score], or the first one listed.

    Raises:
        ConfigError: the suite has no metric of that kind, or [score] names another one.
    """
    names = [entry.name for entry in metrics if registry.metric(entry.name).kind == kind]
    wanted = getattr(header.score, kind)
    if wanted in names or (names and wanted is None):
        return wanted or names[0]
    if names:
        near = nearest(wanted, names)
        raise ConfigError(
            f"{source}: score.{kind} = {wanted!r} is no {kind} metric of this suite",
            expected=f"one of {', '.join(near)}",
            fix=f'write {kind} = "{near[0]}" under [score], or list [metric.{wanted}] as well',
        )
    known = [name for name in registry.names("metric") if registry.metric(name).kind == kind]
    raise ConfigError(
        f"{source} has no {kind} metric",
        expected=f"one of each kind that the score is made of: {', '.join(known) or 'none is registered'}",
        fix=f"write [metric.{known[0] if known else 'NAME'}], or `unmemorize run` (or plan) with --metrics",
    )


def checked_run(run: RunSettings, registry: Registry, source: str, folder: Path) -> RunSettings:
    """Return `run` with the executor that it has, once that takes the settings given to it.

    Paths among these are relative to the suite's folder if something is there, and else to the working directory.

    Raises:
        ConfigError: a wrong setting of the executor.
        UnknownNameError: an executor that nothing registered.
    """
    name = run.executor or os.environ.get(EXECUTOR) or _default_executor(registry)
    place = Place(source, "run.executor_config", shown=name)
    if name == INLINE:
        validated(StrictConfig, run.executor_config, place._replace(shown=""))
        return run.model_copy(update={"executor": name})
    config = registry.get("executor", name, where=source, also=[INLINE]).Config
    values = {key: _beside(folder, key, value, config) for key, value in run.executor_config.items()}
    validated(config, values, place)
    return run.model_copy(update={"executor": name, "executor_config": values})


def _default_executor(registry: Registry) -> str:
    names = [name for name in registry.names("executor") if registry.executor(name).by_default]
    if len(names) > 1:
        raise ConfigError(
            f"two plugins make their executor the default: {', '.join(names)}",
            expected="one default, or a run that names its executor",
            fix=f"set {EXECUTOR}={names[0]}, or uninstall one of the plugins",
        )
    return names[0] if names else INLINE


def _beside(folder: Path, key: str, value: object, config: type[StrictConfig]) -> object:
    field = config.model_fields.get(key)
    is_path = isinstance(value, str) and field is not None and "Path" in str(field.annotation)
    return str(folder / str(value)) if is_path and (folder / str(value)).exists() else value


def known_paths(raw: Raw, registry: Registry, source: str) -> Paths:
    """Return every dotted path that --set may name in this suite."""
    paths = Paths(Header, without={"plugins"})
    for table in raw["testbed"]:
        provider = provider_of(raw, table, registry, source)
        config = registry.get("provider", provider, where=source).Config
        paths.add(f"testbed.{table}", config, also=["provider"])
    for name in raw["method"]:
        paths.add(f"method.{name}", registry.get("method", name, where=source).Config)
    for name in raw["metric"]:
        paths.add(f"metric.{name}", registry.get("metric", name, where=source).Config)
    return paths
