"""Questions to plugins: an answer of a wrong type is an error that names the plugin, where the core asks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any, NamedTuple

from unmemorize.contracts.cost import Cost
from unmemorize.contracts.metric import Measurement, Reading
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.errors import PluginError


class _Answer(NamedTuple):
    kinds: tuple[type, ...]
    words: str
    items: type | None = None
    """What an iterable holds, or the keys and values of a dict."""


_ANSWERS = {
    "supports": _Answer((str, NoneType), "a reason as text, or None"),
    "cost": _Answer((Cost, NoneType), "an unmemorize.Cost, or None"),
    "readings": _Answer((Iterable,), "objects of type unmemorize.Reading", Reading),
    "measure": _Answer((Iterable,), "objects of type unmemorize.Measurement", Measurement),
    "label": _Answer((str,), "a text that begins with the metric's name"),
    "fingerprint": _Answer((dict,), "a dict of texts", str),
    "load": _Answer((Testbed,), "an unmemorize.Testbed"),
}


def ask(plugin: Any, question: str, *given: Any) -> Any:
    """Call a method of a plugin and return its answer; an iterable is returned as a list.

    Raises:
        PluginError: the answer is of a type that the contract does not allow, or the plugin called `exit()`.
        Exception: whatever the plugin raises.
    """
    with surviving(plugin, question):
        return _answer(plugin, question, getattr(plugin, question)(*given))


@contextmanager
def surviving(plugin: Any, question: str) -> Iterator[None]:
    """Make an error that names the plugin of its `exit()`: no other cell, and no other check, is to end with it."""
    try:
        yield
    except SystemExit as error:
        raise PluginError(
            f"{_kind(plugin)} {plugin.name!r}: `{question}` called exit({error.code!r})",
            expected="an exception where something is wrong: `exit()` ends the whole process",
            fix=f"raise an error in `{question}` of {type(plugin).__name__} instead",
        ) from error


def _answer(plugin: Any, question: str, value: Any) -> Any:
    answer = _ANSWERS[question]
    allowed = isinstance(value, answer.kinds)
    if not allowed:
        raise _wrong(plugin, question, "returned", value)
    if isinstance(value, Testbed):
        return _with_sets(plugin, value)
    if answer.items is None:
        return value
    verb = "returned a dict with" if isinstance(value, dict) else "yields"
    if not isinstance(value, dict):
        value = list(itertools.islice(value, _MOST + 1))
    if len(value) > _MOST:
        raise _wrong(plugin, question, verb, f"more than {_MOST:,} items")
    for item in itertools.chain(*value.items()) if isinstance(value, dict) else value:
        if not isinstance(item, answer.items):
            raise _wrong(plugin, question, verb, item)
    return value


def _with_sets(plugin: Any, testbed: Testbed) -> Testbed:
    for name, sequences in [("forget", testbed.forget), *testbed.sets().items()]:
        if not isinstance(sequences, Sequences):
            raise _wrong(plugin, "load", f"returned a testbed whose {name} set is", sequences)
    return testbed


def _wrong(plugin: Any, question: str, verb: str, value: Any) -> PluginError:
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
    described = shown if value is None or isinstance(value, bool) else f"{type(value).__name__} {shown}"
    return PluginError(
        f"{_kind(plugin)} {plugin.name!r}: `{question}` {verb} {described}",
        expected=_ANSWERS[question].words,
        fix=f"correct `{question}` of {type(plugin).__name__}; `unmemorize check {plugin.name}` shows the rest",
    )


def _kind(plugin: Any) -> str:
    return "method" if hasattr(plugin, "apply") else "metric" if hasattr(plugin, "measure") else "provider"


_LONGEST = 80
_MOST = 10_000
"""Items of an answer: measurements of all parts of all sets."""
