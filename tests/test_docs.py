"""The generated pages are fresh, and what the README says can be typed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import unmemorize
from unmemorize.registry.manager import Registry
from unmemorize.suite.load import load_suite

ROOT = Path(__file__).parents[1]


def _build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = _build().pages()


@pytest.mark.parametrize("path", PAGES)
def test_generated_pages_are_fresh(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path], "run `python docs/build.py`"


def test_every_hook_is_documented() -> None:
    from unmemorize.contracts import hookspecs

    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "unmemorize_spec")]
    assert len(hooks) == 8
    assert all(f"## {name}\n" in PAGES["docs/hooks.md"] for name in hooks)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_every_command_in_the_readme_exists(registry: Registry) -> None:
    from unmemorize.cli import COMMANDS

    lines = [line for block in _blocks("sh") for line in block.splitlines() if line.startswith("unmemorize ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[1] in COMMANDS, line
        if words[1] in ("run", "plan") and not words[2].endswith(".toml"):
            load_suite(words[2], registry)


def test_python_in_the_readme_uses_the_public_door() -> None:
    blocks = _blocks("python")
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec")
        for name in re.findall(r"unmemorize\.(\w+)", block):
            assert name in unmemorize.__all__, name
        for names in re.findall(r"from unmemorize import (.*)", block):
            for name in names.strip("()").split(","):
                assert name.strip() in unmemorize.__all__, name


def test_the_plugin_of_the_readme_works(tmp_path: Path, registry: Registry) -> None:
    plugin = next(block for block in _blocks("python") if "hookimpl" in block)
    path = tmp_path / "magnitude.py"
    path.write_text(plugin)
    registry.add_file(path)
    from unmemorize.testing import tiny_model

    mitigation = unmemorize.mitigate(tiny_model("llama"), method="magnitude", forget=[[3, 4, 5, 6]], registry=registry)
    assert mitigation.edited > 0


@pytest.mark.parametrize(
    "path", sorted((ROOT / "leaderboards").glob("*/suite.toml")), ids=lambda path: path.parent.name
)
def test_every_shipped_suite_loads_and_plans(path: Path, registry: Registry) -> None:
    from unmemorize.execution.plan import plan

    suite = load_suite(path, registry)
    assert suite.name == path.parent.name
    assert plan(suite, registry)
    assert registry.suite(suite.name) == path
