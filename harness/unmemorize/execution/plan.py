"""The plan of a suite: which cells there are, what each one's key is, and which of them are done already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.answers import ask
from unmemorize.errors import ConfigError, PluginError, UnmemorizeError
from unmemorize.registry.isolation import isolated_call
from unmemorize.registry.manager import Registry
from unmemorize.results.keys import BASE_TEXT, canonical, cell_key, identity, testbed_text
from unmemorize.results.record import BASE, PluginOrigin
from unmemorize.suite.model import Suite, TestbedEntry, settings

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Cell:
    """One planned piece of work. Its dicts are shared between cells: read them, do not write."""

    index: int
    """Number of this cell in the plan, from 0."""
    suite: str
    testbed: str
    provider: str
    provider_origin: PluginOrigin
    provider_config: dict[str, Any]
    """Every setting, defaults filled in, JSON-ready; so are the other configs."""
    fingerprint: dict[str, str]
    method: str
    """The method's name, or `base`."""
    method_origin: PluginOrigin | None
    method_config: dict[str, Any]
    stage: str
    """The method's stage, or `-` for the base."""
    needs: tuple[str, ...]
    """The data that the method is shown."""
    metrics: dict[str, dict[str, Any]]
    """Metric settings by metric name."""
    metric_origins: tuple[PluginOrigin, ...]
    memorization: str
    """Name of the headline memorization metric."""
    utility: str
    """Name of the headline utility metric."""
    seed: int
    key: str
    """Content hash of everything that can change this cell's numbers."""
    group: str
    """The cells that share a loaded testbed: its name and the seed."""


class Plan(NamedTuple):
    """The cells of a suite, those that are done and those that are not."""

    cached: tuple[Cell, ...]
    to_run: tuple[Cell, ...]


class _Hashed(NamedTuple):
    """Something that enters keys: the value, and its canonical JSON, written once."""

    value: dict[str, Any]
    text: str


class _Choice(NamedTuple):
    """The base, or one configuration of a method."""

    method: str
    origin: PluginOrigin | None
    config: dict[str, Any]
    text: str
    stage: str = "-"
    needs: tuple[str, ...] = ()


def plan(suite: Suite, registry: Registry) -> tuple[Cell, ...]:
    """Return every cell of a suite: for each testbed and seed the base first, then the methods in order.

    Nothing is loaded and nothing is written; providers are asked for their fingerprints.

    Raises:
        ConfigError: two testbeds that are the same in everything that matters.
        UnmemorizeError: whatever a provider's fingerprint raises.
    """
    metrics = _metrics(suite, registry)
    origins = tuple(registry.origin("metric", entry.name) for entry in suite.metrics)
    choices = tuple(_choices(suite, registry))
    cells: list[Cell] = []
    for testbed, fingerprint, hashed in _testbeds(suite, registry):
        origin = registry.origin("provider", testbed.provider)
        for seed in suite.seeds:
            for choice in choices:
                cells.append(
                    Cell(
                        index=len(cells),
                        suite=suite.name,
                        testbed=testbed.name,
                        provider=testbed.provider,
                        provider_origin=origin,
                        provider_config=hashed.value,
                        fingerprint=fingerprint,
                        method=choice.method,
                        method_origin=choice.origin,
                        method_config=choice.config,
                        stage=choice.stage,
                        needs=choice.needs,
                        metrics=metrics.value,
                        metric_origins=origins,
                        memorization=suite.memorization,
                        utility=suite.utility,
                        seed=seed,
                        key=cell_key(hashed.text, choice.text, metrics.text, seed),
                        group=f"{testbed.name}/seed={seed}",
                    )
                )
    return tuple(cells)


def split(cells: Iterable[Cell], done: Set[str]) -> Plan:
    """Divide cells into those whose key is in `done` and those that have to run."""
    listed = tuple(cells)
    return Plan(
        cached=tuple(cell for cell in listed if cell.key in done),
        to_run=tuple(cell for cell in listed if cell.key not in done),
    )


class Estimate(NamedTuple):
    """How long cells will take, as far as earlier records tell."""

    seconds: float
    unknown: int
    """Number of cells whose method has no earlier record."""


def usual_seconds(records: pl.DataFrame) -> dict[str, float]:
    """Return the median seconds of each method's done cells, for `estimate`."""
    import polars as pl

    known = records.filter((pl.col("status") == "done") & pl.col("total_seconds").is_not_null())
    medians = known.group_by("method").agg(pl.col("total_seconds").median())
    return dict(medians.select("method", "total_seconds").iter_rows())


def estimate(cells: Iterable[Cell], seconds_by_method: Mapping[str, float]) -> Estimate:
    """Add up the usual seconds of each cell's method."""
    known = [seconds_by_method.get(cell.method) for cell in cells]
    return Estimate(sum(value for value in known if value is not None), known.count(None))


def _testbeds(suite: Suite, registry: Registry) -> Iterator[tuple[TestbedEntry, dict[str, str], _Hashed]]:
    seen: dict[str, str] = {}
    for entry in suite.testbeds:
        config = settings(entry.config)
        fingerprint = _fingerprint(entry, registry)
        origin = registry.origin("provider", entry.provider)
        text = testbed_text(origin, config, fingerprint)
        if text in seen:
            raise ConfigError(
                f"{suite.source}: testbeds {seen[text]!r} and {entry.name!r} are the same",
                expected="testbeds that differ in provider or settings",
                fix=f"remove [testbed.{entry.table}], or change one of its settings",
            )
        seen[text] = entry.name
        yield entry, fingerprint, _Hashed(config, text)


def _fingerprint(entry: TestbedEntry, registry: Registry) -> dict[str, str]:
    try:
        with isolated_call():
            return dict(ask(registry.provider(entry.provider)(entry.config), "fingerprint"))
    except (UnmemorizeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError.raised(f"`fingerprint` of provider {entry.provider!r}", error) from error


def _choices(suite: Suite, registry: Registry) -> Iterator[_Choice]:
    yield _Choice(BASE, None, {}, BASE_TEXT)
    for entry in suite.methods:
        origin, method = registry.origin("method", entry.name), registry.method(entry.name)
        for config in entry.configs:
            plain = settings(config)
            text = canonical(identity(origin, plain))
            yield _Choice(entry.name, origin, plain, text, method.stage, tuple(sorted(method.needs)))


def _metrics(suite: Suite, registry: Registry) -> _Hashed:
    plain = {entry.name: settings(entry.config) for entry in suite.metrics}
    identities = {name: identity(registry.origin("metric", name), config) for name, config in plain.items()}
    return _Hashed(plain, canonical(identities))
