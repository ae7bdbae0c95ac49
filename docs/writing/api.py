"""The page about the public API: every public name, with its signature and what it is for."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import unmemorize
import unmemorize.testing
from unmemorize.contracts.config import StrictConfig
from writing.code import Member, constant, members, signature
from writing.docstrings import described, inline
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
    "errors": "Errors",
}
"""What the names of each package are about, in reading order; one that is missing here follows under its own name."""

PUBLIC = {
    "unmemorize": "What users and authors of plugins need. These names are stable in the sense of "
    "[versioning](versioning.md).",
    "unmemorize.toolkit": "The parts that methods, metrics and providers are built with. They may change at a minor "
    "version, with a line in the changelog.",
    "unmemorize.testing": "For tests: the conformance suite, and tiny models that really memorize.",
}
"""The modules that plugins and programs may import from, and what each is for."""

NAMED = {
    "contracts.context": ("Phase", "Silent"),
    "contracts.method": ("Stage",),
    "contracts.metric": ("Statistic", "Kind", "Direction"),
    "editing.edit_file": ("Edits",),
    "editing.selection": ("Scope",),
    "evaluation.generation": ("Processor",),
    "leaderboard.board": ("Table",),
    "models.source": ("AnyModel",),
    "registry.entries": ("PluginInfo",),
    "registry.manager": ("Collision",),
    "results.record": ("PluginOrigin", "Status"),
    "testing.memorizing": ("MemorizingConfig", "Untrained"),
    "training.checkpoint": ("Position", "Stateful"),
    "training.losses": ("Tokens",),
    "unlearning.per_sequence": ("Visit",),
}
"""What the signatures of public names mention and nobody has to import, by the module that defines it."""


def api_page() -> str:
    """Every public name, module by module."""
    parts = [
        "# The public API\n",
        "All that plugins and programs may import. Whatever is not here may change at any time.\n",
        table(("import from", ""), [(code(name), about) for name, about in PUBLIC.items()]),
    ]
    for name, about in PUBLIC.items():
        parts += [f"## {name}\n", f"{about}\n", *_sections(importlib.import_module(name))]
    parts += [
        "## Types that signatures name\n",
        "They come and go with the names above; import none of them.\n",
        _named(),
    ]
    return NOTE + "\n".join(part for part in parts if part)


def _named() -> str:
    found: dict[str, str] = {}
    for home, names in NAMED.items():
        module = importlib.import_module(f"unmemorize.{home}")
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value):
                found[name] = cell(inline(value.__doc__ or ""))
            else:
                member = constant(module.__name__, name)
                found[name] = f"{code(member.signature.partition(' = ')[2])} {cell(inline(member.doc))}"
    return table(("name", "what it is"), [(code(name), about) for name, about in sorted(found.items())])


def _sections(module: ModuleType) -> Iterator[str]:
    by_package: dict[str, list[str]] = {}
    for name, home in homes(module).items():
        by_package.setdefault(home.partition(".")[0], []).append(name)
    titled = [package for package in TITLES if package in by_package and module is not unmemorize.testing]
    for package in titled:
        yield f"### {TITLES[package]}\n"
        yield from (entry(module, name) for name in by_package.pop(package))
    for names in by_package.values():
        yield from (entry(module, name) for name in names)


def homes(module: ModuleType) -> dict[str, str]:
    """Return where each name of a public module is defined, from its stub: `{"run": "api", ...}`."""
    stub = ast.parse(Path(str(module.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def entry(public: ModuleType, name: str) -> str:
    """Return the section of one public name."""
    value = getattr(public, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return _constant(public, name)
    parts = [f"#### {name}\n", fenced(signature(value), "python"), described(value.__doc__)]
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
    """Return a member in one line: long defaults of fields are left out, and so is `self`."""
    if member.kind == "field":
        return member.signature if len(member.signature) < 60 else member.signature.partition(" = ")[0]
    if member.kind == "property":
        return f"{member.name} -> {member.signature.rpartition(' -> ')[2]}"
    head = " ".join(member.signature.removeprefix("def ").split())
    return re.sub(r"\((self|cls)(, )?", "(", head).replace("( ", "(").replace(", )", ")")


def _about(member: Member) -> str:
    return ("To be written by the plugin. " if member.kind == "abstract" else "") + inline(member.doc)


def _constant(public: ModuleType, name: str) -> str:
    module = f"{public.__package__}.{homes(public)[name]}"
    importlib.import_module(module)
    found = constant(module, name)
    shown = found.signature if len(found.signature) < 120 else found.signature.partition(" = ")[0]
    return "\n".join([f"#### {name}\n", fenced(shown, "python"), described(found.doc)])
