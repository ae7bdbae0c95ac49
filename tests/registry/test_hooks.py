from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from unmemorize.errors import PluginError
from unmemorize.registry import Registry
from unmemorize.registry.entries import HOOK_KINDS
from unmemorize.registry.hooks import hook_names, signature
from unmemorize.registry.hookspecs import hookimpl


def refused(plugin: object) -> PluginError:
    registry = Registry()
    with pytest.raises(PluginError) as caught:
        registry.add(plugin, name="mine", version="3")
    assert registry.plugins() == []
    return caught.value


def test_there_are_eight_hooks_and_each_registering_one_has_a_kind() -> None:
    assert len(hook_names()) == 8
    assert set(HOOK_KINDS) == {name for name in hook_names() if name.startswith("register_")}


def test_a_signature_is_written_as_in_python() -> None:
    assert signature("cell_started") == "cell_started(event)"
    assert signature("register_methods") == "register_methods()"


def test_an_unknown_hook_names_plugin_hook_and_near_names() -> None:
    class Plugin:
        @hookimpl
        def register_method(self) -> list[Any]:
            return []

    error = refused(Plugin())
    assert error.what == (
        "plugin 'mine' (runtime 3): 'register_method' is marked as a hook, and no hook is called 'register_method'"
    )
    assert error.expected.startswith("one of register_methods, ")
    assert error.fix == "rename it to register_methods, or remove @hookimpl from register_method"


def test_a_foreign_argument_names_it_and_shows_the_signature() -> None:
    class Plugin:
        @hookimpl
        def cell_finished(self, event: Any, record: Any) -> None: ...

    error = refused(Plugin())
    assert "hook 'cell_finished' (cell_finished) asks for the argument 'record'" in error.what
    assert error.expected.startswith("cell_finished(event)")
    assert error.fix == "write `def cell_finished(event):`"


@pytest.mark.parametrize(
    "function", [lambda: None, lambda event: None, lambda event, extra=1: None, lambda *rest: None]
)
def test_arguments_may_be_left_out_or_have_defaults(function: Any) -> None:
    Registry().add(SimpleNamespace(cell_started=hookimpl(function)))


def test_a_keyword_only_argument_without_default_is_foreign() -> None:
    error = refused(SimpleNamespace(cell_started=hookimpl(lambda *, record: None)))
    assert "'record'" in error.what


def test_a_hook_under_another_function_name() -> None:
    class Plugin:
        @hookimpl(specname="cell_startd")
        def mine(self) -> None: ...

    error = refused(Plugin())
    assert "'mine' is marked as a hook, and no hook is called 'cell_startd'" in error.what


def test_a_forgotten_mark_is_noticed() -> None:
    error = refused(SimpleNamespace(register_methods=list))
    assert error.what.endswith("it defines register_methods and does not mark it as a hook")
    assert "`@hookimpl` above `def register_methods():`" in error.fix


def test_a_plugin_without_any_hook_is_refused() -> None:
    error = refused(SimpleNamespace())
    assert error.what.endswith("it implements no hook")
    assert "register_methods" in error.expected


def test_what_pluggy_refuses_is_translated() -> None:
    class Plugin:
        @hookimpl(hookwrapper=True)
        def cell_started(self, event: Any) -> None: ...

    assert "cell_started" in refused(Plugin()).what
