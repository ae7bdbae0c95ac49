from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from unmemorize.contracts.executor import ExecutorFactory
from unmemorize.contracts.layout import Layout
from unmemorize.contracts.method import Method
from unmemorize.errors import (
    BrokenPluginError,
    LayoutError,
    NameCollisionError,
    PluginError,
    UnknownNameError,
)
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import CellEvent, hookimpl

EVENT = CellEvent(key="k", suite="s", testbed="t", method="m", seed=0, index=0, total=1)


def method(name: str) -> type[Method]:
    return type("Mine", (Method,), {"name": name, "stage": "unlearn", "apply": lambda self, testbed, context: None})


def plugin(*names: str) -> SimpleNamespace:
    return SimpleNamespace(register_methods=hookimpl(lambda: [method(name) for name in names]))


def test_a_plugin_joins_and_leaves_at_run_time() -> None:
    registry = Registry()
    info = registry.add(plugin("one", "two"), name="mine", distribution="notebook", version="7")
    assert info.provides == {"method": ("one", "two")}
    assert registry.names("method") == ("one", "two")
    origin = registry.origin("method", "two")
    assert (origin.name, origin.plugin, origin.distribution, origin.version) == (
        "two",
        "mine",
        "notebook",
        "7",
    )
    registry.remove("mine")
    assert registry.names("method") == ()
    assert registry.plugins() == []


def test_a_removed_tracker_is_told_nothing() -> None:
    told: list[str] = []
    registry = Registry()
    registry.add(SimpleNamespace(cell_started=hookimpl(lambda event: told.append(event.key))), name="tracker")
    registry.notify_started(EVENT)
    registry.remove("tracker")
    registry.notify_started(EVENT)
    assert told == ["k"]


def test_removing_what_is_not_there_names_what_is() -> None:
    registry = Registry()
    registry.add(plugin("one"), name="mine")
    with pytest.raises(UnknownNameError, match="no plugin is called 'mien'") as caught:
        registry.remove("mien")
    assert caught.value.expected == "one of mine"


def test_a_collision_at_run_time_is_refused_at_once_and_leaves_nothing() -> None:
    registry = Registry()
    registry.add(plugin("one"), name="first")
    with pytest.raises(NameCollisionError, match=r"'first' .* and 'second'"):
        registry.add(plugin("two", "one"), name="second")
    assert registry.names("method") == ("one",)
    assert [info.name for info in registry.plugins()] == ["first"]


def test_the_same_plugin_or_the_same_plugin_name_twice_is_refused() -> None:
    registry, one = Registry(), plugin("one")
    registry.add(one, name="mine")
    with pytest.raises(PluginError, match="registered already"):
        registry.add(one, name="other")
    with pytest.raises(PluginError, match="registered already"):
        registry.add(plugin("two"), name="mine")
    assert registry.names("method") == ("one",)


def test_one_name_may_stand_for_things_of_two_kinds() -> None:
    registry = Registry()
    layout = Layout(model_types=("one",), blocks="h", mlps=(("up", "down"),))
    registry.add(plugin("one"), name="first")
    registry.add(SimpleNamespace(register_layouts=hookimpl(lambda: [layout])), name="second")
    assert registry.layout("one") is layout
    assert registry.method("one").name == "one"


def test_unknown_names_come_with_near_ones() -> None:
    registry = Registry()
    registry.add(plugin("durable", "extra"))
    with pytest.raises(UnknownNameError) as caught:
        registry.method("durabel")
    assert caught.value.what == "no method is called 'durabel'"
    assert caught.value.expected == "one of durable, extra"
    with pytest.raises(UnknownNameError, match="in suite 'x'"):
        registry.get("method", "durabel", where="suite 'x'")


@pytest.mark.parametrize("kind", ["method", "metric", "provider", "executor", "suite"])
def test_an_empty_registry_says_so(kind: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        getattr(Registry(), kind)("x")
    assert caught.value.expected == f"a registered {kind}; none is"


def test_an_unknown_model_type_is_a_layout_error() -> None:
    with pytest.raises(LayoutError, match="model type 'mamba'"):
        Registry().layout("mamba")


def test_look_up_mentions_broken_plugins(install: Callable[..., Any]) -> None:
    install("bad", "raise RuntimeError('boom')", version="0.1")
    registry = Registry.load()
    with pytest.raises(UnknownNameError) as caught:
        registry.method("durable_x_y_z")
    assert caught.value.expected.endswith("(not loaded, because broken: plugin 'bad' (bad 0.1))")
    with pytest.raises(LayoutError, match="because broken: plugin 'bad'"):
        registry.layout("no_such_type")
    with pytest.raises(BrokenPluginError) as broken:
        registry.method("bad")
    assert broken.value.what == (
        "the method 'bad' is not available: plugin 'bad' (bad 0.1) failed to load: RuntimeError: boom"
    )


def test_executors_are_looked_up_too() -> None:
    factory = type("F", (ExecutorFactory,), {"name": "mine", "create": lambda self: None})
    registry = Registry()
    registry.add(SimpleNamespace(register_executors=hookimpl(lambda: [factory])))
    assert registry.executor("mine") is factory


def test_trackers_are_told_of_both_moments_in_order() -> None:
    told: list[str] = []
    registry = Registry()
    registry.add(
        SimpleNamespace(
            cell_started=hookimpl(lambda event: told.append(f"started {event.key}")),
            cell_finished=hookimpl(lambda event: told.append(f"finished {event.key}")),
        )
    )
    registry.notify_started(EVENT)
    registry.notify_finished(EVENT)
    assert told == ["started k", "finished k"]


def test_a_tracker_may_be_an_object_that_cannot_be_hashed() -> None:
    @dataclass
    class Tracker:
        told: list[str]

        @hookimpl
        def cell_started(self, event: CellEvent) -> None:
            self.told.append(event.key)

    registry, first, second = Registry(), Tracker([]), Tracker([])  # equal, and not the same
    registry.add(first, name="first")
    registry.add(second, name="second")
    registry.notify_started(EVENT)
    assert first.told == second.told == ["k"]


@pytest.mark.parametrize("error", [ValueError("no connection"), SystemExit("no connection")])
def test_a_tracker_that_raises_is_warned_about_once_and_the_others_are_told(error: BaseException) -> None:
    def fail(event: CellEvent) -> None:
        raise error

    told: list[str] = []
    registry = Registry()
    registry.add(SimpleNamespace(cell_started=hookimpl(lambda event: told.append(event.key))), name="before")
    registry.add(SimpleNamespace(cell_started=hookimpl(fail), cell_finished=hookimpl(fail)), name="tracker")
    registry.add(SimpleNamespace(cell_started=hookimpl(lambda event: told.append(event.key))), name="after")
    expected = r"plugin 'tracker' \(runtime 0\): cell_started raised .*: no connection"
    with pytest.warns(RuntimeWarning, match=expected):
        registry.notify_started(EVENT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.notify_started(EVENT)
        registry.notify_finished(EVENT)
    assert len(told) == 4
