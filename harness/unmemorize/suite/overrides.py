"""Overrides from the command line: `method.balanced_subnet.ratio=0.05`."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Set
from typing import Any, NamedTuple

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import ConfigError
from unmemorize.files.parsing import check_depth, parsed


class Override(NamedTuple):
    """One `--set PATH=VALUE`."""

    path: str
    value: Any


def parse(text: str) -> Override:
    """Read one override; a value that is not TOML is taken as text, `executor.` stands for `run.executor_config.`.

    Raises:
        ConfigError: there is no `=`, or no path before it; or the value is nested too deeply, or too large a number.
    """
    path, equals, written = (part.strip() for part in text.partition("="))
    if not equals or not path:
        raise ConfigError(
            f"--set {text!r} has no value",
            expected="PATH=VALUE with a dotted path and a TOML value",
            fix=f"write e.g. --set {path or 'seeds'}=[0,1]",
        )
    try:
        return Override(re.sub(r"^executor\.", "run.executor_config.", path), _value(written))
    except ValueError as error:
        raise ConfigError(
            f"--set {path}: {error}",
            expected="a value that a setting can have: a number, a text, or a list of them",
            fix=f"write a plain value: --set {path}=VALUE",
        ) from None


def _value(written: str) -> Any:
    try:
        value = parsed(tomllib.loads, f"value = {written}")
    except tomllib.TOMLDecodeError:
        return written
    check_depth(value)
    return value["value"] if len(value) == 1 else written


def apply(raw: dict[str, Any], override: Override, known: Paths) -> None:
    """Write `override` into the raw tables of a suite, in place; an array of tables takes it in every table.

    Raises:
        ConfigError: the path is none of `known`.
    """
    keys = override.path.split(".")
    if not known.hold(keys):
        raise _unknown_path(override.path, known)
    tables = [raw]
    for key in keys[:-1]:
        tables = [inner for table in tables for inner in _tables(table, key)]
    for table in tables:
        table[keys[-1]] = override.value


def _tables(table: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    inner = table.setdefault(key, {})
    yield from (one for one in (inner if isinstance(inner, list) else [inner]) if isinstance(one, dict))


class Paths:
    """Every dotted path that a suite has."""

    def __init__(self, top: type[StrictConfig], *, without: Set[str] = frozenset()) -> None:
        self._nested: set[str] = set()
        self._plain: set[str] = set()
        self.add("", top)
        self._plain = {path for path in self._plain if path.partition(".")[0] not in without}

    def add(self, table: str, config: type[StrictConfig], *, also: Iterable[str] = ()) -> None:
        """Add the settings of one table, and those of the tables in it."""
        prefix = f"{table}." if table else ""
        self._plain.update(prefix + name for name in also)
        for name, field in config.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, StrictConfig):
                self.add(prefix + name, inner)
            elif "dict" in str(inner):
                self._nested.add(prefix + name)
            self._plain.add(prefix + name)

    def hold(self, keys: list[str]) -> bool:
        """Return whether `keys` name a setting, or something inside a free table."""
        path = ".".join(keys)
        return path in self._plain or any(path.startswith(f"{table}.") for table in self._nested)

    def near(self, path: str) -> list[str]:
        """Return the paths most like `path` first, at most five."""
        paths = sorted(self._plain)
        close = difflib.get_close_matches(path, paths, n=5, cutoff=0.5)
        shared = [other for other in paths if other.rpartition(".")[0] == path.rpartition(".")[0]]
        return (close + [other for other in [*shared, *paths] if other not in close])[:5]


def _unknown_path(path: str, known: Paths) -> ConfigError:
    near = known.near(path)
    return ConfigError(
        f"--set {path}: the suite has no such setting",
        expected=f"one of {', '.join(near)}",
        fix=f"write --set {near[0]}=VALUE; a method that is not in the suite joins it with --methods",
    )
