"""Reads code for the pages: signatures as they are written, fields with the sentence under each, docstrings."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Member(NamedTuple):
    """One public field, property or method of a class."""

    name: str
    kind: str
    """`field`, `property`, `method` or `abstract`."""
    signature: str
    """As it is written: `needs: ClassVar[frozenset[str]] = ...`, `apply(self, testbed: Testbed, ...) -> None`."""
    doc: str


def signature(value: Any) -> str:
    """Return the head of a class or function as its source writes it, without comments and the last colon."""
    lines, node = _source(value)
    return _head(lines, node)


def first_paragraph(value: Any) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join(inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0].split())


def members(value: type) -> list[Member]:
    """Return the public fields, properties and methods that a class itself defines, in the order of its source."""
    lines, node = _source(value)
    return list(_members(lines, node.body))


def constant(module: str, name: str) -> Member:
    """Return a name that a module assigns, with the docstring under it."""
    body = _parsed(_file(module)).body
    return next(member for member in _members(_lines(_file(module)), body) if member.name == name)


def text_of(value: Any) -> str:
    """Return the whole source of a class or function."""
    lines, node = _source(value)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))


def _members(lines: list[str], body: list[ast.stmt]) -> Iterator[Member]:
    for number, node in enumerate(body):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield Member(node.name, _kind(node), _head(lines, node), ast.get_docstring(node) or "")
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                following = body[number + 1] if number + 1 < len(body) else None
                written = ast.get_source_segment("\n".join(lines), node) or ""
                yield Member(target.id, "field", " ".join(written.split()), _sentence(following))


def _kind(node: ast.FunctionDef) -> str:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if "abstractmethod" in decorators:
        return "abstract"
    return "property" if decorators & {"property", "cached_property"} else "method"


def _sentence(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _head(lines: list[str], node: Definition) -> str:
    ends = node.body[0].lineno - 1 if node.body[0].lineno > node.lineno else node.lineno
    head = [line.split("  # ")[0].rstrip() for line in lines[node.lineno - 1 : ends]]
    while head and not head[-1].endswith(":"):  # a comment or an empty line before the body
        head.pop()
    return textwrap.dedent("\n".join(head)).removesuffix(":")


def _source(value: Any) -> tuple[list[str], Definition]:
    """Return the lines of the file that defines a class or function, and its definition there."""
    value = inspect.unwrap(value)
    file = _file(value.__module__)
    body: list[ast.stmt] = _parsed(file).body
    found: Definition | None = None
    for name in value.__qualname__.split("."):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = next(node for node in body if isinstance(node, kinds) and node.name == name)
        body = found.body
    assert found is not None
    return _lines(file), found


def _file(module: str) -> Path:
    return Path(str(sys.modules[module].__file__))


@cache
def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))
