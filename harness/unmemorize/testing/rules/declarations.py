"""Rules about what a plugin class declares, before anything runs."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from unmemorize.errors import PluginError, listed, nearest
from unmemorize.registry.validation import checked_names
from unmemorize.suite.fields import describe
from unmemorize.testing.report import Finding, Kind

PUBLIC = frozenset({"unmemorize.toolkit", "unmemorize.testing"})
"""What plugins may import from, beside `unmemorize` itself."""


class Declared(Protocol):
    """What these rules look at."""

    @property
    def plugin(self) -> type[Any]:
        """The class."""

    @property
    def kind(self) -> Kind:
        """What it is a class of."""

    @property
    def rule_names(self) -> tuple[str, ...]:
        """The names of all rules of that kind."""


def declared(case: Declared) -> Iterator[Finding]:
    """It declares all that its contract asks for, with valid values, and imports the public API alone."""
    plugin = case.plugin
    try:
        checked_names(case.kind, plugin, "")
    except PluginError as error:
        yield Finding(error.what.removeprefix(": "), error.expected, error.fix)
        return
    if not isinstance(plugin.paper, str):
        yield Finding(
            f"{plugin.__name__} has paper = {plugin.paper!r}",
            "a text that says where the definition comes from, or nothing",
            f'write e.g. `paper = "Author et al. 2025, arXiv 2501.01234"` in {plugin.__name__}',
        )
    if not isinstance(plugin.excused, Mapping):
        yield Finding(
            f"{plugin.__name__} has excused = {plugin.excused!r}",
            "a dict of rules that it breaks on purpose, each with the reason",
            'write e.g. `excused = {"keeps_utility": "it shows what a dead model scores"}`',
        )
        return
    yield from _excuses(case)
    yield from _internal_imports(plugin)


def _internal_imports(plugin: type[Any]) -> Iterator[Finding]:
    if plugin.__module__.startswith("unmemorize."):  # of the core itself
        return
    try:
        source = inspect.getsource(sys.modules[plugin.__module__])
    except (KeyError, OSError, TypeError):  # made in an interactive session
        return
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    internal = sorted(name for name in imported - PUBLIC if name.startswith("unmemorize."))
    if internal:
        yield Finding(
            f"{plugin.__module__} imports {listed(internal)}",
            f"imports from unmemorize and {' and '.join(sorted(PUBLIC))} alone: anything else may change at any time",
            "import the name from one of these: docs/api.md lists all public ones",
            warning=True,
        )


def _excuses(case: Declared) -> Iterator[Finding]:
    names = case.rule_names
    for name, reason in plugin_excuses(case.plugin).items():
        if name not in names:
            near = nearest(name, names)
            yield Finding(
                f"{case.plugin.__name__}.excused names {name!r}, which is no rule for a {case.kind}",
                f"one of {', '.join(near)}",
                f"write {near[0]!r}, or remove it",
            )
        elif not isinstance(reason, str) or not reason.strip():
            yield Finding(
                f"{case.plugin.__name__}.excused gives no reason for {name!r}",
                "a sentence that a reader of the report understands",
                f'write e.g. `excused = {{"{name}": "it counts padding by definition"}}`',
            )


def plugin_excuses(plugin: type[Any]) -> dict[str, str]:
    """Return the rules that a plugin breaks on purpose, each with its reason."""
    return dict(plugin.excused) if isinstance(plugin.excused, Mapping) else {}


def documented(case: Declared) -> Iterator[Finding]:
    """It has a docstring, and so has every setting: `unmemorize show` and the docs are made from them."""
    plugin = case.plugin
    if not (plugin.__dict__.get("__doc__") or "").strip():
        yield Finding(
            f"{plugin.__name__} has no docstring",
            "a first sentence that says what it does",
            f'write `"""What it does."""` below `class {plugin.__name__}`',
        )
    for facts in describe(plugin.Config):
        if not facts.sentence:
            yield Finding(
                f"the setting {facts.name!r} of {plugin.Config.__name__} has no description",
                "a sentence under each field",
                f'write `"""What it sets."""` on the line below `{facts.name}: ...`',
            )
