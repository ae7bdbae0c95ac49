"""Loads a suite: a name, a file or a dict, a choice of its parts, and overrides, into a validated `Suite`."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unmemorize.errors import ConfigError, nearest
from unmemorize.files.error_reasons import reason_of
from unmemorize.files.parsing import check_depth, parsed
from unmemorize.files.places import named
from unmemorize.registry.manager import Registry
from unmemorize.suite.build import (
    build_methods,
    build_metrics,
    build_testbeds,
    check_count,
    checked_run,
    headline,
    known_paths,
)
from unmemorize.suite.error_messages import Place, syntax_error, validated
from unmemorize.suite.header import Header, PluginSettings
from unmemorize.suite.model import Suite, TestbedEntry, described
from unmemorize.suite.overrides import apply, parse
from unmemorize.suite.tables import SECTIONS, Raw, check_shape, select


def load_suite(  # noqa: PLR0913  as `run`: keywords
    source: str | Path | Mapping[str, Any],
    registry: Registry,
    *,
    overrides: Iterable[str] = (),
    methods: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    testbeds: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    executor: str | None = None,
) -> Suite:
    """Load and validate a suite.

    Args:
        source: a registered name, the path of a TOML file (or of a folder that holds `suite.toml`), or the
            same tables as a dict.
        registry: where names are looked up; the suite's plugin files are added to it.
        overrides: `PATH=VALUE` texts, the value as in TOML.
        methods: the methods to keep; a registered method that the suite does not list joins with its
            defaults. `base` is always measured and may be named.
        metrics: the metrics to keep, in the same way.
        testbeds: the testbeds to keep: `noise`, or one point of its grid, `noise[layers=2]`.
        seeds: seeds in place of the suite's own.
        executor: where it is run, in place of the suite's own executor and that one's settings.

    Raises:
        ConfigError: a wrong key, type, range or path, named by its full dotted path.
        UnknownNameError: a suite, provider, method, metric or executor that nothing registered.
        PluginError: a plugin file that does not load.
    """
    raw, path = _read(source, registry)
    where = described(str(raw.get("name", "?")), path)
    check_shape(raw, where)
    # Plugin files come first: what they register is what the rest of the suite names.
    files = _add_files(raw, path, where, registry)
    select(raw, "method", methods, registry)
    select(raw, "metric", metrics, registry)
    if executor is not None:
        _choose(raw, executor)
    _override(raw, overrides, registry, where)
    if seeds is not None:
        raw["seeds"] = list(seeds)
    suite = _build(raw, path, files, registry)
    return suite if testbeds is None else _keep_testbeds(suite, testbeds)


def _build(raw: Raw, path: Path | None, files: tuple[Path, ...], registry: Registry) -> Suite:
    where = described(str(raw.get("name", "?")), path)
    header = validated(Header, {key: raw[key] for key in raw if key not in SECTIONS}, Place(where, ""))
    metrics = build_metrics(raw, registry, where)
    testbeds, methods = build_testbeds(raw, registry, where), build_methods(raw, registry, where)
    cells = len(testbeds) * len(header.seeds) * (1 + sum(len(method.configs) for method in methods))
    check_count(cells, "cells", where, "see README, 'Suites'")
    return Suite(
        name=header.name,
        description=header.description,
        seeds=header.seeds,
        run=checked_run(header.run, registry, where, Path() if path is None else path.parent),
        files=files,
        testbeds=testbeds,
        methods=methods,
        metrics=metrics,
        memorization=headline("memorization", header, metrics, registry, where),
        utility=headline("utility", header, metrics, registry, where),
        path=path,
    )


def _choose(raw: Raw, executor: str) -> None:
    run = raw.setdefault("run", {})
    if isinstance(run, dict) and run.get("executor") != executor:
        raw["run"] = {**run, "executor": executor, "executor_config": {}}


def _override(raw: Raw, overrides: Iterable[str], registry: Registry, where: str) -> None:
    parsed = [parse(text) for text in overrides]
    if parsed:
        known = known_paths(raw, registry, where)
        for override in parsed:
            apply(raw, override, known)
        _check_depth(raw, f"--set in {where}")


def _read(source: str | Path | Mapping[str, Any], registry: Registry) -> tuple[Raw, Path | None]:
    if isinstance(source, Mapping):
        _check_depth(source, "the suite")
        return copy.deepcopy(dict(source)), None
    path = _path(source, registry)
    try:
        raw = parsed(tomllib.loads, path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {reason_of(error)}",
            expected="a file that you may read",
            fix=f"check its permissions with `ls -l {path}`",
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}",
            expected="a TOML file in UTF-8",
            fix=f"save {path.name} as UTF-8",
        ) from None
    except ValueError as error:
        raise syntax_error(path, error) from None
    _check_depth(raw, str(path))
    return raw, path


def _check_depth(raw: Mapping[str, Any], where: str) -> None:
    try:
        check_depth(raw)
    except ValueError as error:
        raise ConfigError(
            f"{where}: {error}",
            expected="tables of settings, and in them numbers, texts, and lists of them",
            fix="remove brackets that stand in one another",
        ) from None


def _path(source: str | Path, registry: Registry) -> Path:
    """Return the suite file that `source` means: registered names first, unless it is written as a path."""
    text, path = str(source), named(source, "the suite")
    written_as_path = isinstance(source, Path) or "/" in text or "\\" in text or text.endswith(".toml")
    if not written_as_path and (text in registry.names("suite") or not path.exists()):
        return registry.suite(text)
    file = path / "suite.toml" if path.is_dir() else path
    if not file.is_file():
        names = ", ".join(nearest(path.stem, registry.names("suite")))
        raise ConfigError(
            f"the suite file {file} does not exist",
            expected=f"the path of a TOML file, or the name of a suite: {names or 'none is registered'}",
            fix="check the path; `unmemorize list suites` shows the names",
        )
    return file


def _add_files(raw: Raw, path: Path | None, where: str, registry: Registry) -> tuple[Path, ...]:
    table = raw.get("plugins", {})
    settings = validated(Header, {"name": "x", "plugins": table}, Place(where, "")).plugins
    assert isinstance(settings, PluginSettings)
    folder = Path() if path is None else path.parent
    files = tuple((folder / file).resolve() for file in settings.files)
    for file in files:
        registry.add_file(file)
    return files


def _keep_testbeds(suite: Suite, wanted: Sequence[str]) -> Suite:
    names = {entry.name for entry in suite.testbeds} | {entry.table for entry in suite.testbeds}
    for name in wanted:
        if name not in names:
            near = nearest(name, names)
            raise ConfigError(
                f"{suite.source} has no testbed called {name!r}",
                expected=f"one of {', '.join(near)}",
                fix=f"write --testbeds {near[0]}",
            )
    return suite.model_copy(update={"testbeds": tuple(e for e in suite.testbeds if _is_wanted(e, wanted))})


def _is_wanted(entry: TestbedEntry, wanted: Sequence[str]) -> bool:
    return entry.name in wanted or entry.table in wanted
