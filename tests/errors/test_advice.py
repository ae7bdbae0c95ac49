"""Every command and option that the code advises exists: on the command that it names, or on each that can say it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from unmemorize.cli import COMMANDS, group

ROOT = Path(__file__).parents[2]
CORE = ROOT / "harness" / "unmemorize"

LOADING = ("run", "plan", "export", "show", "list", "plugins", "check", "mitigate")
WORKING = ("run", "export", "find", "mitigate")
SAID_BY: dict[str, tuple[str, ...]] = {
    "errors.py NoOpError": ("run", "mitigate", "check"),
    "errors.py DeadlineExceeded": ("run", "mitigate"),
    "errors.py MemoryExceeded": ("run",),
    "contrib/unmemorize-submitit/": ("run", "plan"),
    "api/inapplicable.py": ("mitigate",),
    "execution/export.py": ("export",),
    "leaderboard/": ("board",),
    "models/devices.py": (*WORKING, "plan"),
    "registry/": LOADING,
    "scaffold/": ("new",),
    "search/": ("find",),
    "suite/load.py": ("run", "plan"),
    "suite/overrides.py parse": ("run", "plan", "check", "mitigate"),
    "suite/overrides.py": ("run", "plan"),
    "testing/": ("check",),
    "cli/__init__.py": tuple(COMMANDS),
    "cli/failures.py": tuple(COMMANDS),
    **{f"cli/{name}.py": (name,) for name in COMMANDS},
}
"""Who can say what stands in a file, or in a function or class of it: the first entry that begins the place counts."""

ASKING = {"show", "list", "plugins"}
"""Commands that a text names as the place to look something up, beside what it advises."""

FOREIGN = re.compile(r"`hf [^`]*`|pip install --upgrade")
"""Commands of others, with options of their own."""


class Advice(NamedTuple):
    place: str
    text: str

    @property
    def options(self) -> set[str]:
        return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", FOREIGN.sub("", self.text)))

    @property
    def commands(self) -> set[str]:
        return set(re.findall(r"(?:^|`|: )unmemorize ([a-z]+)", self.text))


def _advice() -> Iterator[Advice]:
    """Every text of the code that names a command or an option, but for docstrings and declarations of options."""
    plugins = ROOT / "plugins"
    for path in [*CORE.rglob("*.py"), *plugins.rglob("*.py")]:
        if "tests" not in path.parts:
            place = path.relative_to(CORE if path.is_relative_to(CORE) else plugins).as_posix()
            yield from (each for each in _texts(ast.parse(path.read_text()), place) if each.options or each.commands)


def _texts(node: ast.AST, place: str) -> Iterator[Advice]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield Advice(place, child.value)
        elif isinstance(child, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "X" for part in child.values)
            yield Advice(place, "".join(map(str, parts)))
        elif isinstance(child, (ast.FunctionDef, ast.ClassDef)) and " " not in place:
            yield from _texts(child, f"{place} {child.name}")
        elif not _declares(child):
            yield from _texts(child, place)


def _declares(node: ast.AST) -> bool:
    """Whether this is a docstring, or the declaration of an option."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, (ast.Constant, ast.JoinedStr))
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.option", "_eager", "shared_options")


def _options(command: str) -> set[str]:
    found = group.get_command(click.Context(group), command)
    assert found is not None
    spelled = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {"--help", *spelled}


ELSEWHERE = ("cli/options.py", "leaderboard/page.py")
"""Files that declare options, and the style sheet of a page."""

ADVICE = sorted({advice for advice in _advice() if not advice.place.startswith(ELSEWHERE)})


def test_it_is_found() -> None:
    assert len(ADVICE) > 50
    assert sum(bool(advice.options) for advice in ADVICE) > 20


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: f"{advice.place}: {advice.text[:60]}")
def test_it_can_be_typed(advice: Advice) -> None:
    assert advice.commands <= COMMANDS.keys()
    if advice.options:
        said_by = advice.commands - ASKING or next(
            commands for place, commands in SAID_BY.items() if advice.place.startswith(place)
        )
        for command in said_by:
            assert advice.options <= _options(command), command
