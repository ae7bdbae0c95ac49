"""The raw tables of a suite: their shape, and which of them are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, get_args

from unmemorize.errors import ConfigError
from unmemorize.registry.manager import Registry
from unmemorize.results.record import BASE
from unmemorize.suite.error_messages import Place, not_a_table, unknown_key
from unmemorize.suite.header import Header

Section = Literal["testbed", "method", "metric"]
SECTIONS: tuple[Section, ...] = get_args(Section)

Raw = dict[str, Any]

_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_shape(raw: Raw, source: str) -> None:
    """Check the top of a suite: known keys, and sections that are tables of tables.

    Raises:
        ConfigError: a key that no suite has, or something else where a table is meant.
    """
    known = [*Header.model_fields, *SECTIONS]
    for key in raw:
        if key not in known:
            raise unknown_key(Place(source, ""), key, known)
    for section in SECTIONS:
        tables = raw.setdefault(section, {})
        if not isinstance(tables, dict):
            raise not_a_table(Place(source, f"{section}.NAME"), tables)
        for name, table in tables.items():
            _check_table(section, name, table, source)


def _check_table(section: Section, name: str, table: object, source: str) -> None:
    place = Place(source, f"{section}.{name}")
    listed = table if section == "method" and isinstance(table, list) and table else [table]
    if not all(isinstance(one, dict) for one in listed):
        raise not_a_table(place, table)
    if section == "testbed" and not _TABLE_NAME.fullmatch(name):
        raise ConfigError(
            f"{source}: a testbed cannot be called {name!r}",
            expected="a name of letters, digits, '_' and '-'",
            fix=f"write [testbed.{re.sub(r'[^A-Za-z0-9_-]+', '_', name).strip('_') or 'noise'}]",
        )


def select(raw: Raw, section: Section, wanted: Sequence[str] | None, registry: Registry) -> None:
    """Keep only the `wanted` tables of a section, in place; others that are registered join with defaults.

    Raises:
        UnknownNameError: a wanted name that nothing registered.
    """
    if wanted is None or section == "testbed":
        return
    listed: Raw = raw[section]
    # The base row is always measured, so that naming it asks for nothing more.
    names = [name for name in wanted if not (section == "method" and name == BASE)]
    for name in names:
        registry.get(section, name)
    kept = {name: table for name, table in listed.items() if name in names}
    raw[section] = kept | {name: {} for name in names if name not in kept}


def grids(table: Raw | list[Raw]) -> list[Raw]:
    """Return the tables of one name: one, or every table of an array."""
    return table if isinstance(table, list) else [table]
