"""Checks that what a plugin marks as a hook is one of ours, with arguments that we pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import NamedTuple

import pluggy

from unmemorize.errors import PluginError, nearest
from unmemorize.registry import hookspecs


class HookFunction(NamedTuple):
    """A function that a plugin marks with `hookimpl`."""

    hook: str
    function: str


def new_manager() -> pluggy.PluginManager:
    """Return a plugin manager that knows the hooks and no plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def hook_names() -> tuple[str, ...]:
    """Return the names of all hooks."""
    marker = f"{hookspecs.PROJECT}_spec"
    return tuple(name for name, value in vars(hookspecs).items() if hasattr(value, marker))


def signature(hook: str) -> str:
    """Return how a hook is called, e.g. `cell_started(event)`."""
    return f"{hook}({', '.join(_parameters(getattr(hookspecs, hook)))})"


def check_hooks(manager: pluggy.PluginManager, plugin: object, label: str) -> None:
    """Check every marked function of `plugin`.

    Raises:
        PluginError: an unknown hook, a foreign argument, or no hook at all.
    """
    marked = list(_marked(manager, plugin))
    if not marked:
        raise _no_hook(plugin, label)
    for hook, function in marked:
        if hook not in hook_names():
            raise PluginError(
                f"{label}: {function!r} is marked as a hook, and no hook is called {hook!r}",
                expected=f"one of {', '.join(nearest(hook, hook_names()))}",
                fix=f"rename it to {nearest(hook, hook_names())[0]}, or remove @hookimpl from {function}",
            )
        _check_arguments(plugin, hook, function, label)


def _marked(manager: pluggy.PluginManager, plugin: object) -> Iterator[HookFunction]:
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            yield HookFunction(options.get("specname") or name, name)


def _check_arguments(plugin: object, hook: str, function: str, label: str) -> None:
    allowed = _parameters(getattr(hookspecs, hook))
    foreign = [name for name in _parameters(getattr(plugin, function)) if name not in allowed]
    if foreign:
        raise PluginError(
            f"{label}: hook {hook!r} ({function}) asks for the argument {foreign[0]!r}, which nobody passes",
            expected=f"{signature(hook)}; arguments that are not used may be left out",
            fix=f"write `def {signature(hook)}:`",
        )


def _parameters(function: object) -> list[str]:
    """Return the names of the arguments that a caller must give."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variable]


def _no_hook(plugin: object, label: str) -> PluginError:
    unmarked = [name for name in hook_names() if callable(getattr(plugin, name, None))]
    if unmarked:
        return PluginError(
            f"{label}: it defines {unmarked[0]} and does not mark it as a hook",
            expected="@hookimpl above every hook",
            fix=f"from unmemorize import hookimpl; write `@hookimpl` above `def {signature(unmarked[0])}:`",
        )
    return PluginError(
        f"{label}: it implements no hook",
        expected=f"at least one of {', '.join(hook_names())}",
        fix="write e.g. `@hookimpl` above `def register_methods(): return [MyMethod]`",
    )
