from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unmemorize.errors import NameCollisionError, PluginError
from unmemorize.registry import Registry
from unmemorize.registry.files import read_plugin

MethodSource = Callable[[str], str]


def ours() -> set[str]:
    return {name for name in sys.modules if name.startswith("unmemorize_file_")}


@pytest.fixture
def plugin(tmp_path: Path, method_source: MethodSource) -> Path:
    path = tmp_path / "my_plugin.py"
    path.write_text(method_source("mine"))
    return path


def test_a_file_is_a_plugin_whose_version_is_its_content(plugin: Path) -> None:
    registry = Registry()
    registry.add_file(plugin)
    origin = registry.origin("method", "mine")
    assert (origin.plugin, origin.distribution) == ("my_plugin", "my_plugin.py")
    assert origin.version == read_plugin(plugin).digest
    assert len(origin.version) == 12
    assert registry.files == (plugin,)


def test_the_same_content_twice_is_loaded_once(plugin: Path) -> None:
    registry = Registry()
    first = registry.add_file(plugin)
    klass = registry.method("mine")
    assert registry.add_file(os.path.relpath(plugin)) == first
    assert registry.method("mine") is klass
    assert len(registry.plugins()) == 1


def test_changed_content_replaces_what_the_file_registered(plugin: Path, method_source: MethodSource) -> None:
    registry = Registry()
    before = registry.add_file(plugin)
    plugin.write_text(method_source("mind"))  # same size, same second: a bytecode cache would not notice
    after = registry.add_file(plugin)
    assert registry.names("method") == ("mind",)
    assert before.version != after.version


@pytest.mark.parametrize("wrong", ["raise ValueError('boom')", "x = 1"])
def test_changed_content_that_is_broken_leaves_the_earlier_one(plugin: Path, wrong: str) -> None:
    registry = Registry()
    registry.add_file(plugin)
    modules = ours()
    plugin.write_text(wrong)
    with pytest.raises(PluginError):
        registry.add_file(plugin)
    assert registry.names("method") == ("mine",)
    assert ours() == modules


def test_a_file_that_raises_is_named_with_its_line_and_leaves_no_module(tmp_path: Path) -> None:
    path, before = tmp_path / "bad.py", ours()
    path.write_text("x = 1\n\nraise ValueError('boom')\n")
    with pytest.raises(PluginError) as caught:
        Registry().add_file(path)
    assert caught.value.what == f"the plugin file {path}:3 failed to load: ValueError: boom"
    assert ours() == before


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("x = 1\ndef f(:\n")
    with pytest.raises(PluginError, match=r"bad\.py:2 failed to load: SyntaxError"):
        Registry().add_file(path)


def test_a_missing_import_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import a_package_that_is_not_there.part\n")
    with pytest.raises(PluginError) as caught:
        Registry().add_file(path)
    assert caught.value.fix == "pip install the package that holds 'a_package_that_is_not_there'"


def test_sys_exit_in_a_file_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(PluginError, match="SystemExit"):
        Registry().add_file(path)


@pytest.mark.parametrize(("name", "problem"), [("no.py", "does not exist"), ("", "is not a Python file")])
def test_a_path_that_is_no_file(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(PluginError, match=problem):
        Registry().add_file(tmp_path / name)


def test_a_file_that_takes_a_used_name_is_refused_and_leaves_nothing(
    plugin: Path, tmp_path: Path, method_source: MethodSource
) -> None:
    registry = Registry()
    registry.add_file(plugin)
    modules, other = ours(), tmp_path / "other.py"
    other.write_text(method_source("mine"))
    with pytest.raises(NameCollisionError) as caught:
        registry.add_file(other)
    assert "'my_plugin' (my_plugin.py " in caught.value.what
    assert "'other' (other.py " in caught.value.what
    assert registry.method("mine")
    assert registry.files == (plugin,)
    assert ours() == modules


def test_two_files_of_one_name_in_two_folders(tmp_path: Path, method_source: MethodSource) -> None:
    registry = Registry()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plugin.py").write_text(method_source(f"method_{name}"))
        registry.add_file(tmp_path / name / "plugin.py")
    assert registry.names("method") == ("method_a", "method_b")


def test_a_removed_file_leaves_no_module(plugin: Path) -> None:
    registry, before = Registry(), ours()
    registry.add_file(plugin)
    assert ours() > before
    registry.remove("my_plugin")
    assert ours() == before
    assert registry.files == ()
    assert registry.names("method") == ()


def test_a_file_may_define_configs_with_documented_fields(tmp_path: Path) -> None:
    path = tmp_path / "configured.py"
    path.write_text(
        '''
from __future__ import annotations
from dataclasses import dataclass
from unmemorize.contracts.config import StrictConfig
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.contracts.method import Method

@dataclass
class Inner:
    value: int = 1

class Settings(StrictConfig):
    strength: float = 0.5
    """How strongly it acts."""

class Mine(Method):
    name, stage, Config = "mine", "unlearn", Settings
    def apply(self, testbed, context): ...

@hookimpl
def register_methods():
    return [Mine]
'''
    )
    registry = Registry()
    registry.add_file(path)
    field = registry.method("mine").Config.model_fields["strength"]
    assert field.description == "How strongly it acts."


def test_loading_a_file_writes_nothing_beside_it(plugin: Path) -> None:
    Registry().add_file(plugin)
    assert list(plugin.parent.iterdir()) == [plugin]
