"""What a method leaves beside the model, as it can be recorded, and the time that it really took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from numbers import Number
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.context import PHASES, MethodReport
from unmemorize.errors import PluginError, ReportError, listed

if TYPE_CHECKING:
    from unmemorize.contracts.provider import ModelProvider

MOST_BYTES = 1_000_000
"""Length of the notes as JSON."""
_MOST_ITEMS = 1_000
"""Numbers in a tensor or array that becomes a list."""
_DEEPEST = 20


def settle(method: str, report: MethodReport) -> None:
    """Turn what a report holds into plain values: numbers of numpy and torch, members of enums, sets, paths.

    Raises:
        ReportError: something in it cannot be recorded, or is no number, text or processor where one is needed.
    """
    try:
        report.notes = _table(report.notes, "notes")
        report.flags = {_text(flag) for flag in report.flags}
        report.curve = [_point(point) for point in report.curve]
        report.seconds = {phase: _seconds(phase, spent) for phase, spent in report.seconds.items()}
    except _Unplain as problem:
        raise ReportError(method, str(problem)) from problem
    except (TypeError, AttributeError) as problem:
        raise ReportError(method, f"`context.report` is not what it was: {problem}") from problem
    size = len(json.dumps(report.notes))
    if size > MOST_BYTES:
        raise ReportError(method, f"`context.report.notes` take {size / 1e6:.1f} MB, and 1 MB is the most")
    if not isinstance(report.decoding, tuple) or not all(map(callable, report.decoding)):
        raise ReportError(
            method, f"`context.report.decoding` is {report.decoding!r}, and no tuple of logits processors"
        )


def recordable_facts(provider: ModelProvider, facts: Any) -> dict[str, Any]:
    """Return what a provider says about a testbed, as plain values.

    Raises:
        PluginError: it cannot be recorded.
    """
    try:
        return _table(facts, "facts")
    except _Unplain as problem:
        raise PluginError(
            f"provider {provider.name!r}: {str(problem).replace('context.report', 'testbed')}",
            expected="numbers, texts, lists and tables of these",
            fix="convert with float(...), int(...) or .tolist()",
        ) from problem


def charged(method: str, report: MethodReport, spent: float, reused: float) -> float:
    """Return all seconds that are charged; what the method did not charge to a phase is charged to `prepare`.

    Args:
        method: its name.
        report: what it charged.
        spent: seconds that passed by our own clock while it acted, without those of measuring.
        reused: seconds of work that another cell did.

    Raises:
        ReportError: it charged more than that.
    """
    own = sum(report.seconds.values())
    if own > (spent + reused) * 1.01 + 0.1:
        raise ReportError(method, f"{own:.2f} seconds are charged, and {spent + reused:.2f} have passed")
    report.charge("prepare", max(0.0, spent + reused - own))
    return sum(report.seconds.values())


class _Unplain(Exception):  # noqa: N818 - becomes an error where the name of the method is known
    """A value that cannot be recorded, in words."""


def _plain(value: Any, place: str, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise _Unplain(f"`context.report.{place}` cannot be written as JSON: it is nested too deeply, or holds itself")
    if isinstance(value, Enum):
        return _plain(value.value if isinstance(value.value, (str, int, float)) else value.name, place, depth)
    if isinstance(value, (str, PurePath)):
        return str(value)
    if isinstance(value, Mapping):
        return _table(value, place, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [_plain(item, place, depth + 1) for item in items]
    if hasattr(value, "tolist") and getattr(value, "nbytes", 0) <= 8 * _MOST_ITEMS:
        return _plain(value.tolist(), place, depth + 1)
    if value is None or isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
        return value
    raise _Unplain(f"`context.report.{place}` cannot be written as JSON: it holds {_shown(value)}")


def _shown(value: Any) -> str:
    return "a number beyond 64 bits" if isinstance(value, int) else f"a {type(value).__name__}"


def _table(value: Any, place: str, depth: int = 0) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unplain(f"`context.report.{place}` is {_shown(value)}, and no table")
    keys = [key.value if isinstance(key, Enum) else key for key in value]
    wrong = [repr(key) for key in keys if not (key is None or isinstance(key, (str, Number)))]
    if wrong:
        raise _Unplain(f"`context.report.{place}` has the key {wrong[0]}, which is no text")
    names = [str(key) for key in keys]
    if len(set(names)) < len(names):
        raise _Unplain(f"`context.report.{place}` has keys that are one text: {listed(sorted(names))}")
    return {name: _plain(item, place, depth + 1) for name, item in zip(names, value.values(), strict=True)}


def _text(flag: Any) -> str:
    flag = flag.value if isinstance(flag, Enum) and isinstance(flag.value, str) else flag
    flag = flag.name if isinstance(flag, Enum) else flag
    if not isinstance(flag, str):
        raise _Unplain(f"`context.report.flags` holds {flag!r}, which is no text")
    return str(flag)


def _point(point: Any) -> dict[str, float]:
    plain = _table(point, "curve")
    if not all(isinstance(value, (int, float)) for value in plain.values()):
        raise _Unplain("`context.report.curve` holds a point with something other than numbers")
    return {name: float(value) for name, value in plain.items()}


def _seconds(phase: Any, spent: Any) -> float:
    if phase not in PHASES:
        raise _Unplain(f"seconds are charged to {phase}, and not to {', '.join(PHASES)}")
    if not isinstance(spent, (int, float)) or not 0 <= spent < math.inf:
        raise _Unplain(f"the seconds of {phase!r} are {spent!r}, and no number from 0 on")
    return float(spent)
