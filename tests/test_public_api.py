"""The public API is whole and described; plugins import nothing else; every part of the toolkit is shared."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unmemorize
import unmemorize.testing
import unmemorize.toolkit

ROOT = Path(__file__).parents[1]
CORE = ROOT / "harness/unmemorize"
PUBLIC = [unmemorize, unmemorize.toolkit, unmemorize.testing]
NAMES = {name for module in PUBLIC for name in module.__all__}
PLUGINS = [ROOT / "plugins/unmemorize_plugins", *sorted(ROOT.glob("plugins/contrib/*/src"))]

ONE_USER = {
    **dict.fromkeys(("gate_gradients", "gate_cost"), "zero_out; in the core, `GateUnlearning`"),
    **dict.fromkeys(("token_losses", "TokenLosses"), "preference; in the core, `train`; the tests of new methods"),
    "located": "tinymem_language; in the core, every other setting that names a place",
    "rerun_numbers": "integrated_gradients; in the core, `Replay`",
    "visit_objective_gradients": "greedy; in the core, `learn_mask`",
    "visit_sequence_gradients": "second_order: per-sequence gradients are too delicate to be written twice",
}
"""Names of the toolkit that only one plugin uses, and why they are there all the same; the list may only shrink."""

OPAQUE = {"Board", "Checkpoint", "Memorizing", "Registry", "Suite"}
"""Public for annotations and for passing on; the types of their fields and methods need not be public."""


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every module of the core that a file imports from, and the name."""
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "unmemorize":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "unmemorize")


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_there(module: ModuleType) -> None:
    assert dir(module) == module.__all__ == sorted(set(module.__all__))
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018


def test_a_name_is_public_once() -> None:
    assert not [
        name for name, times in Counter(name for module in PUBLIC for name in module.__all__).items() if times > 1
    ]


def test_the_public_modules_import_nothing_heavy() -> None:
    names = ", ".join(module.__name__ for module in PUBLIC)
    code = f"import sys, {names}; assert not {{'torch', 'transformers', 'polars', 'pydantic'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_plugins_import_the_public_api_and_nothing_else() -> None:
    files = [path for folder in (*PLUGINS, ROOT / "docs/examples") for path in folder.rglob("*.py")]
    tests = list(ROOT.glob("plugins/contrib/*/tests/*.py"))
    assert len(files) > 70
    assert len(tests) > 3
    found = [(path, module, name) for path in [*files, *tests] for module, name in _imported(path)]
    assert not [(path.name, module, name) for path, module, name in found if name not in _public(module, path)]


def _public(module: str, path: Path) -> set[str]:
    """Return the names that a file may import from a module; an empty one is the module itself."""
    allowed = {public.__name__: {"", *public.__all__} for public in PUBLIC}
    if not path.name.startswith(("test_", "conftest")):
        del allowed["unmemorize.testing"]
    return allowed.get(module, set())


@pytest.mark.parametrize("path", sorted(CORE.glob("scaffold/templates/*/*.py.txt")), ids=lambda path: path.name)
def test_templates_import_the_public_api_and_nothing_else(path: Path) -> None:
    for module, names in re.findall(r"^from (unmemorize[\w.]*) import (.*)$", path.read_text(), flags=re.MULTILINE):
        assert module in {public.__name__ for public in PUBLIC}
        assert set(names.split(", ")) <= set(importlib.import_module(module).__all__)


def test_every_part_of_the_toolkit_has_two_users() -> None:
    users = Counter(
        name
        for folder in PLUGINS
        for path in folder.rglob("*.py")
        for name in {name for module, name in _imported(path) if module == "unmemorize.toolkit"}
    )
    shared = {name for name in unmemorize.toolkit.__all__ if users[name] > 1}
    assert set(unmemorize.toolkit.__all__) - shared - _with_their_types([*unmemorize.__all__, *shared]) == set(ONE_USER)


def _with_their_types(names: Iterable[str]) -> set[str]:
    """Return public names with those that stand in their signatures, and in theirs."""
    found, waiting = set(), set(names)
    while waiting:
        found |= waiting
        waiting = {word for name in waiting - OPAQUE for word in _types(_value(name)) if word in NAMES} - found
    return found


def _value(name: str) -> Any:
    return next(getattr(module, name) for module in PUBLIC if name in module.__all__)


def test_types_in_public_signatures_are_public() -> None:
    inner = {"Kind", "SharedWork"}  # an alias of str in metrics; what `Context.shared` alone uses
    core = {cls.name for path in CORE.rglob("*.py") for cls in _classes(path)} - inner
    shown = {(name, word) for name in NAMES - OPAQUE for word in _types(_value(name)) if word in core - NAMES}
    assert not [(name, word) for name, word in shown if not word.startswith("_")]


def test_aliases_in_public_signatures_are_explained() -> None:
    page = (CORE.parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    aliases = {
        name
        for path in CORE.rglob("*.py")
        for name in re.findall(r"^([A-Z][a-z]\w+)(?::.*)? = (?!Annotated)", path.read_text(), re.M)
    }
    named = [_value(name) for name in NAMES if "Config" not in {base.__name__[-6:] for base in _bases(_value(name))}]
    shown = {word for value in named for word in _types(value) if word in aliases - NAMES}
    assert {"AnyModel", "Statistic", "Processor", "Edits"} <= shown
    assert not [word for word in shown if f"| `{word}` |" not in page]


def _bases(value: Any) -> tuple[type, ...]:
    return value.__mro__ if inspect.isclass(value) else ()


def _classes(path: Path) -> Iterator[ast.ClassDef]:
    yield from (node for node in _parsed(path).body if isinstance(node, ast.ClassDef))


def _types(value: Any) -> set[str]:
    """Return the names in the annotations of a public class's or function's signature, public methods and fields."""
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return set()
    value = inspect.unwrap(value)
    body = _parsed(Path(inspect.getfile(value))).body
    node = next(n for n in body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name == value.__name__)
    return {name.id for annotation in _annotations(node) for name in ast.walk(annotation) if isinstance(name, ast.Name)}


def _annotations(node: ast.stmt) -> Iterator[ast.expr]:
    if isinstance(node, ast.ClassDef):
        yield from node.bases
        public = [
            n for n in node.body if not getattr(n, "name", "").startswith("_") or getattr(n, "name", "") == "__init__"
        ]
        yield from (annotation for inner in public for annotation in _annotations(inner))
    elif isinstance(node, ast.AnnAssign):
        if isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            yield node.annotation
    elif isinstance(node, ast.FunctionDef):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        yield from (argument.annotation for argument in given if argument.annotation)
        yield from [node.returns] if node.returns else []
