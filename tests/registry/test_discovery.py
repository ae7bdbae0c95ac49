from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unmemorize.errors import NameCollisionError, UnknownNameError
from unmemorize.registry import PluginInfo, Registry
from unmemorize.registry.discovery import Source, chosen, is_own, normalized

Install = Callable[..., object]
MethodSource = Callable[[str], str]


def info(registry: Registry, name: str) -> PluginInfo:
    return next(one for one in registry.plugins() if one.name == name)


def third_parties(registry: Registry) -> list[PluginInfo]:
    return [one for one in registry.plugins() if not is_own(one.distribution)]


def test_an_installed_plugin_is_found_with_its_distribution_and_version(
    install: Install, method_source: MethodSource
) -> None:
    install("unmemorize-thing", method_source("thing"), version="1.2")
    registry = Registry.load()
    assert registry.method("thing").name == "thing"
    origin = registry.origin("method", "thing")
    assert (origin.plugin, origin.distribution, origin.version) == (
        "unmemorize_thing",
        "unmemorize-thing",
        "1.2",
    )
    assert info(registry, "unmemorize_thing").provides == {"method": ("thing",)}


def test_a_plugin_that_fails_to_import_is_broken_and_the_other_one_works(
    install: Install, method_source: MethodSource
) -> None:
    install("bad", "import a_package_that_is_not_there", version="0.3")
    install("good", method_source("thing"))
    registry = Registry.load()
    assert registry.method("thing").name == "thing"
    bad = info(registry, "bad")
    assert (bad.status, bad.distribution, bad.version) == ("broken", "bad", "0.3")
    assert bad.error == "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"
    assert bad.fix == "pip install the package that holds 'a_package_that_is_not_there'"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: "),
    ],
)
def test_whatever_an_import_raises_breaks_only_that_plugin(
    install: Install, method_source: MethodSource, source: str, error: str
) -> None:
    install("bad", source)
    install("good", method_source("thing"))
    registry = Registry.load()
    assert info(registry, "bad").error.startswith(error)
    assert info(registry, "bad").fix == "pip install --upgrade bad, or pip uninstall bad"
    assert "thing" in registry.names("method")


def test_a_plugin_that_breaks_a_rule_is_broken_with_the_rule_and_its_fix(
    install: Install, method_source: MethodSource
) -> None:
    install("bad", method_source("NotSnake"))
    broken = info(Registry.load(), "bad")
    assert broken.error == "PluginError: Thing has the name 'NotSnake'; expected a `name` in snake_case"
    assert broken.fix == 'write `name = "not_snake"` in Thing'


def test_a_hook_that_raises_breaks_its_whole_plugin(install: Install, method_source: MethodSource) -> None:
    source = method_source("thing") + "\n@hookimpl\ndef register_metrics():\n    return 1 / 0\n"
    install("bad", source)
    registry = Registry.load()
    assert info(registry, "bad").error.startswith("PluginError: register_metrics failed: ZeroDivisionError")
    assert "thing" not in registry.names("method")


def test_a_module_that_the_entry_point_names_wrongly_is_broken(install: Install) -> None:
    install("bad", "", entry_points="[unmemorize]\nbad = another_name\n")
    assert info(Registry.load(), "bad").error == "ModuleNotFoundError: No module named 'another_name'"


def test_entry_points_that_cannot_be_parsed_break_only_their_distribution(
    install: Install, method_source: MethodSource
) -> None:
    install("bad", "", entry_points="[unmemorize]\nno equals sign\n")
    install("good", method_source("thing"))
    registry = Registry.load()
    assert registry.method("thing")
    assert [(one.name, one.status) for one in third_parties(registry)] == [("good", "ok"), ("bad", "broken")]
    assert "[project.entry-points.unmemorize]" in info(registry, "bad").fix


def test_metadata_that_cannot_be_read_still_leaves_a_plugin(install: Install, method_source: MethodSource) -> None:
    folder = install("thing", method_source("thing"))
    assert isinstance(folder, Path)
    (folder / "thing-1.2.dist-info" / "METADATA").write_bytes(b"Metadata-Version: 2.1\nName: \xff\n")
    registry = Registry.load("")
    assert registry.origin("method", "thing").distribution == "unknown"


def test_two_distributions_with_one_entry_point_name_are_both_loaded(
    install: Install, method_source: MethodSource
) -> None:
    for number in ("one", "two"):
        points = f"[unmemorize]\nplugin = module_{number}\n"
        install(f"dist-{number}", method_source(number), module=f"module_{number}", entry_points=points)
    assert {"one", "two"} <= set(Registry.load().names("method"))


def test_a_name_registered_twice_is_refused_with_both_origins_and_all_else_works(
    install: Install, method_source: MethodSource
) -> None:
    install("first", method_source("thing"), version="1.0")
    install("second", method_source("thing"), version="2.0")
    install("third", method_source("other"))
    registry = Registry.load()
    with pytest.raises(NameCollisionError) as caught:
        registry.method("thing")
    assert caught.value.what == (
        "the method name 'thing' is registered by 'first' (first 1.0) and 'second' (second 2.0)"
    )
    assert registry.method("other")
    assert "thing" not in registry.names("method")
    (collision,) = registry.collisions()
    assert (collision.kind, collision.name) == ("method", "thing")
    registry.remove("second")
    assert registry.origin("method", "thing").distribution == "first"


def test_two_entry_points_to_one_module_load_it_once(install: Install, method_source: MethodSource) -> None:
    install("twice", method_source("thing"), entry_points="[unmemorize]\na = twice\nb = twice\n")
    registry = Registry.load()
    assert registry.method("thing")
    assert "registered already" in info(registry, "b").error


def test_none_loads_nothing_from_third_parties(install: Install, method_source: MethodSource) -> None:
    install("good", method_source("thing"))
    assert third_parties(Registry.load("none")) == []


def test_the_environment_restricts_and_an_argument_wins_over_it(
    install: Install, method_source: MethodSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("good", method_source("thing"))
    install("other", method_source("second_thing"))
    monkeypatch.setenv("UNMEMORIZE_PLUGINS", "good")
    assert [one.name for one in third_parties(Registry.load())] == ["good"]
    assert len(third_parties(Registry.load(""))) == 2


def source(name: str, distribution: str) -> Source:
    return Source(name, distribution, "1", lambda: None)


OWN, MINE, THEIRS = source("builtin", "unmemorize"), source("mine", "Un_Mine"), source("theirs", "un-theirs")


@pytest.mark.parametrize(
    ("restriction", "expected"),
    [
        (None, [OWN, MINE, THEIRS]),
        ("", [OWN, MINE, THEIRS]),
        ("none", [OWN]),
        ("mine", [OWN, MINE]),
        ("un-mine , theirs", [OWN, MINE, THEIRS]),
        ("builtin", [OWN]),
    ],
)
def test_restrictions(restriction: str | None, expected: list[Source]) -> None:
    assert chosen([OWN, MINE, THEIRS], restriction) == expected


def test_a_restriction_to_something_that_is_not_installed_names_what_is() -> None:
    with pytest.raises(UnknownNameError) as caught:
        chosen([OWN, MINE], "mien")
    assert caught.value.what == "no installed plugin is called 'mien' in UNMEMORIZE_PLUGINS"
    assert caught.value.expected.startswith("one of mine, ")
    assert "unset it" in caught.value.fix


def test_own_and_normalized_names() -> None:
    assert is_own("Unmemorize")
    assert not is_own("unmemorize-thing")
    assert normalized("Un_Mine.x") == "un-mine-x"
