"""TOML and JSON, no deeper than what reads them afterwards can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LEVELS = 64
"""Levels of lists and tables in settings, at most."""
_DEEP = "lists or tables are nested too deeply"


def parsed(read: Callable[[str], Any], text: str) -> Any:
    """Return `read(text)`, of `json.loads` or `tomllib.loads`.

    Raises:
        ValueError: it is no JSON or TOML, has a number of too many digits, or is nested too deeply.
    """
    try:
        return read(text)
    except RecursionError:
        raise ValueError(_DEEP) from None


def check_depth(settings: object) -> None:
    """Refuse settings of more than `LEVELS` levels.

    Raises:
        ValueError: lists or tables stand in one another more often.
    """
    level: list[Any] = [settings]
    for _ in range(LEVELS):
        inner = [value.values() if isinstance(value, Mapping) else value for value in level]
        level = [one for values in inner for one in values if isinstance(one, (Mapping, list, tuple))]
        if not level:
            return
    raise ValueError(f"{_DEEP}: more than {LEVELS} levels")
