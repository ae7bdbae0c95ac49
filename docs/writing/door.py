"""The page about the public door: every public name, with its signature and what it is for."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import unmemorize
import unmemorize.testing
from unmemorize.contracts.config import StrictConfig
from writing.code import Member, constant, first_paragraph, members, signature
from writing.markdown import NOTE, cell, code, fenced, table
from writing.plugins import settings

TITLES = {
    "api": "What to do: run, read results, mitigate, find, export",
    "contracts": "Contracts: what a plugin is, and what it is given",
    "evaluation": "Passes that metrics share",
    "training": "Training",
    "unlearning": "Unlearning: neurons, weights, gradients, gates",
    "editing": "Selecting and changing weights",
    "models": "Models",
    "data": "Texts and token ids",
    "files": "Files",
    "search": "What a search finds",
    "execution": "Estimates",
    "errors": "Errors",
}
"""What the names of each room are about, in reading order; a room that is missing here follows under its own name."""


def door_page() -> str:
    """Every public name of `unmemorize` and of `unmemorize.testing`."""
    by_room: dict[str, list[str]] = {}
    for name in unmemorize.__all__:
        by_room.setdefault(unmemorize._HOME[name].partition(".")[0], []).append(name)
    rooms = [room for room in TITLES if room in by_room] + sorted(set(by_room) - set(TITLES))
    parts = [
        "# The public door\n",
        "All that plugins and programs may import: `from unmemorize import ...`, and in tests "
        "`from unmemorize.testing import ...`. Every name here is stable in the sense of [versioning](versioning.md), "
        "unless it says otherwise; whatever is not here may change at any time.\n",
    ]
    for room in rooms:
        parts.append(f"## {TITLES.get(room, room)}\n")
        parts += [entry(unmemorize, name) for name in by_room[room]]
    parts.append("## For tests: `unmemorize.testing`\n")
    parts += [entry(unmemorize.testing, name) for name in unmemorize.testing.__all__]
    return NOTE + "\n".join(part for part in parts if part)


def entry(door: ModuleType, name: str) -> str:
    """Return the section of one public name."""
    value = getattr(door, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return _constant(door, name)
    parts = [f"### {name}\n", fenced(signature(value), "python"), f"{first_paragraph(value)}\n"]
    if inspect.isclass(value):
        config = issubclass(value, StrictConfig) and value is not StrictConfig
        parts.append(settings(value) if config else members_table(value))
    return "\n".join(part for part in parts if part)


def members_table(value: type, *, inherited: bool = False) -> str:
    """Return the public fields, properties and methods of a class: those it defines, or also those of its bases.

    Bases stop where the core's own code does.
    """
    found: dict[str, Member] = {}
    for base in reversed(value.__mro__) if inherited else (value,):
        if base.__module__.partition(".")[0] == "unmemorize":
            found |= {member.name: member for member in members(base)}
    return table(("", "what it is"), [(code(_short(member)), cell(_about(member))) for member in found.values()])


def _short(member: Member) -> str:
    """Return a member in one line: fields without their defaults' length, methods without `self` and types."""
    if member.kind == "field":
        return member.signature if len(member.signature) < 60 else member.signature.partition(" = ")[0]
    if member.kind == "property":
        return f"{member.name} -> {member.signature.rpartition(' -> ')[2]}"
    arguments = member.signature.partition("(")[2].rpartition(")")[0]
    return f"{member.name}({_names(arguments)})"


def _names(arguments: str) -> str:
    """Return the names of arguments without their types and defaults."""
    import ast

    given = ast.parse(f"def f({arguments}): ...").body[0].args  # type: ignore[attr-defined]
    names = [argument.arg for argument in [*given.posonlyargs, *given.args]]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    starred = [f"*{given.vararg.arg}"] if given.vararg else ["*"] if given.kwonlyargs else []
    names += [*starred, *(argument.arg for argument in given.kwonlyargs)]
    return ", ".join(names + ([f"**{given.kwarg.arg}"] if given.kwarg else []))


def _about(member: Member) -> str:
    text = member.doc.partition(" Args: ")[0].partition(" Raises: ")[0]
    return f"To be written by the plugin. {text}" if member.kind == "abstract" else text


def _constant(door: ModuleType, name: str) -> str:
    module = f"{door.__name__}.{_home(door)[name]}"
    importlib.import_module(module)
    found = constant(module, name)
    shown = found.signature if len(found.signature) < 120 else found.signature.partition(" = ")[0]
    return "\n".join([f"### {name}\n", fenced(shown, "python"), f"{found.doc}\n"])


def _home(door: Any) -> dict[str, str]:
    homes: dict[str, str] = door._HOME
    return homes
