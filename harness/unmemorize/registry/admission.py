"""Lets a plugin in or refuses it with the rule that it breaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

import pluggy

from unmemorize.errors import NameCollisionError, PluginError, said_by
from unmemorize.files.digests import source_digest
from unmemorize.registry.entries import HOOK_KINDS, KINDS, RUNTIME, Entry, PluginInfo
from unmemorize.registry.files import import_fix
from unmemorize.registry.hooks import check_hooks, new_manager
from unmemorize.registry.validation import checked_names
from unmemorize.results.record import PluginOrigin


class Admitted(NamedTuple):
    """A plugin that keeps every rule, with what it registers."""

    info: PluginInfo
    plugin: object
    entries: tuple[Entry, ...]
    manager: pluggy.PluginManager
    """Holds this plugin alone, so that what it does in a hook reaches no other."""


def admit(plugin: object, about: PluginInfo) -> Admitted:
    """Check a plugin's hooks and everything that it registers.

    Args:
        plugin: a module, or any object with marked hooks.
        about: its name, distribution and version.

    Raises:
        PluginError: it breaks a rule.
        NameCollisionError: it registers one name twice.
    """
    manager = new_manager()
    check_hooks(manager, plugin, about.label)
    try:
        manager.register(plugin)
    except pluggy.PluginValidationError as error:
        raise PluginError(
            f"{about.label}: {error}",
            expected="functions that pluggy accepts as hooks",
            fix="compare them with the hooks in CONTRIBUTING",
        ) from error
    entries = tuple(_entries(manager, about, _code(plugin, about)))
    provides = {kind: tuple(entry.name for entry in entries if entry.kind == kind) for kind in KINDS}
    present: dict[str, tuple[str, ...]] = {kind: names for kind, names in provides.items() if names}
    return Admitted(dataclasses.replace(about, provides=present), plugin, entries, manager)


def broken_info(about: PluginInfo, error: BaseException) -> PluginInfo:
    """Return the line that shows a plugin as broken, with the error and what to type."""
    if isinstance(error, PluginError):
        said = error.what.removeprefix(f"{about.label}: ")
        text, fix = f"{type(error).__name__}: {said}; expected {error.expected}", error.fix
    else:
        text = f"{type(error).__name__}: {said_by(error)}"
        fix = import_fix(error) or f"pip install --upgrade {about.distribution}, or pip uninstall {about.distribution}"
    return PluginInfo(about.name, about.distribution, about.version, status="broken", error=text, fix=fix)


def _code(plugin: object, about: PluginInfo) -> str | None:
    """Return the hash of a plugin's source files, where it has any that other processes have, too."""
    if about.distribution == RUNTIME:
        return None
    with suppress(OSError):
        return source_digest(plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__)
    return None


def _entries(manager: pluggy.PluginManager, about: PluginInfo, code: str | None) -> Iterator[Entry]:
    seen: set[tuple[str, str]] = set()
    for hook, kind in HOOK_KINDS.items():
        for value in _returned(manager, hook, about):
            for name in checked_names(kind, value, about.label):
                if (kind, name) in seen:
                    raise NameCollisionError(kind, name, [f"{about.label} twice"])
                seen.add((kind, name))
                origin = PluginOrigin(
                    name=name, plugin=about.name, distribution=about.distribution, version=about.version, code=code
                )
                yield Entry(kind, name, value, origin)


def _returned(manager: pluggy.PluginManager, hook: str, about: PluginInfo) -> list[Any]:
    results: list[Any] = []
    try:
        caller = getattr(manager.hook, hook)
        answers = caller()
        if len(answers) < len(caller.get_hookimpls()):  # pluggy drops None, which stands where `return` was forgotten
            raise TypeError("it returned None")
        for result in answers:
            results.extend(result)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(
            f"{about.label}: {hook} failed: {type(error).__name__}: {said_by(error)}",
            expected="an iterable of " + ("paths" if hook == "register_suites" else "classes"),
            fix=import_fix(error) or f"let {hook} return a list, e.g. `return [MyClass]`",
        ) from error
    return results
