"""The pages about hooks: an index, and for each hook its signature, its contract, an example and its errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import unmemorize
from unmemorize.contracts.config import StrictConfig
from unmemorize.registry import hookspecs
from unmemorize.registry.hooks import hook_names
from unmemorize.suite.header import Header
from writing.api import members_table
from writing.code import first_paragraph, signature
from writing.markdown import NOTE, fenced, table
from writing.mistakes import MISTAKES, refusal
from writing.plugins import settings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

CONTRACTS: dict[str, Any] = {
    "register_methods": unmemorize.Method,
    "register_metrics": unmemorize.Metric,
    "register_providers": unmemorize.ModelProvider,
    "register_layouts": unmemorize.Layout,
    "register_executors": unmemorize.ExecutorFactory,
    "cell_started": unmemorize.CellEvent,
    "cell_finished": unmemorize.CellEvent,
}
BESIDE: dict[str, tuple[Any, ...]] = {
    "register_metrics": (unmemorize.Measurement,),
    "register_layouts": (unmemorize.MLP, unmemorize.Matrix),
}
"""What a class of the contract makes, where it is a class of its own."""

TRY = {
    "register_methods": "unmemorize check shrink --plugin register_methods.py",
    "register_metrics": "unmemorize check first_token --plugin register_metrics.py",
    "register_providers": "unmemorize check echo --plugin register_providers.py",
    "register_layouts": "unmemorize list layouts --plugin register_layouts.py",
    "register_executors": "unmemorize run quick --plugin register_executors.py --executor fresh_process",
    "register_suites": "unmemorize run echoes --plugin register_suites.py --plugin register_providers.py "
    "--plugin register_methods.py --plugin register_metrics.py",
    "cell_started": "unmemorize run quick --plugin cell_started.py",
    "cell_finished": "unmemorize run quick --plugin cell_finished.py",
}


def index_page() -> str:
    """All hooks, and how a plugin implements one."""
    rows = [(f"[{name}](hooks/{name}.md)", first_paragraph(getattr(hookspecs, name))) for name in hook_names()]
    return (
        NOTE + "# Hooks\n\n"
        "A plugin is a module (or any object) with functions marked `@unmemorize.hookimpl`, each called as one of "
        "these hooks. It implements those that it wants, and leaves out arguments that it does not use. All are "
        "called as soon as plugins are loaded, but for the last two, which tell about cells while a suite runs.\n\n"
        + table(("hook", "what it is for"), rows)
        + "\nunmemorize finds plugins in three ways: installed packages with an entry point in the group `unmemorize`; "
        "files given with `--plugin FILE.py`, or under `[plugins] files` in a suite; objects given to "
        "`unmemorize.run(plugins=[...])`. `unmemorize plugins` shows them all. An installed one that breaks a "
        "rule is shown as broken, with the error and the fix, and everything else goes on working; a file or object "
        "that breaks one is refused. Where two installed ones register one name, nobody can use it until one of them "
        "is gone: the order of installation never decides.\n"
    )


def hook_page(name: str) -> str:
    """One hook."""
    hook = getattr(hookspecs, name)
    parts = [f"# {name}\n", fenced(signature(hook), "python"), f"{inspect.getdoc(hook)}\n"]
    parts += _contract(name)
    parts += _example(name)
    parts.append("## What is refused\n")
    for source in MISTAKES[name]:
        parts += [fenced(source, "python"), fenced(f"error: {refusal(source)}")]
    parts.append("[All hooks](../hooks.md)\n")
    return NOTE + "\n".join(part for part in parts if part)


def _contract(name: str) -> list[str]:
    """Return what the hook returns or receives, member by member."""
    if name == "register_suites":
        return list(_suite_file())
    contract = CONTRACTS[name]
    told = name.startswith("cell_")
    returned = f"What it returns: {'objects' if name == 'register_layouts' else 'subclasses'} of"
    parts = [f"## {'What it is told' if told else returned} `{contract.__name__}`\n"]
    parts += [f"{inspect.getdoc(contract)}\n", members_table(contract)]
    for other in BESIDE.get(name, ()):
        parts += [f"### {other.__name__}\n", f"{inspect.getdoc(other)}\n", members_table(other)]
    return parts


def _suite_file() -> Iterator[str]:
    """Yield what stands in a suite file, table by table."""
    yield "## The file\n"
    yield "A suite file is TOML. At its top:\n"
    fields = Header.model_fields.items()
    tables = {name: field.annotation for name, field in fields if _is_table(field.annotation)}
    top = [row for row in settings(Header).splitlines() if not any(row.startswith(f"| `{name}`") for name in tables)]
    yield "\n".join(top) + "\n"
    for name, config in tables.items():
        yield f"Under `[{name}]`:\n"
        yield settings(config)
    yield (
        'Then a table `[testbed.NAME]` for each testbed, with `provider = "..."` and the provider\'s settings; '
        "`[metric.NAME]` and `[method.NAME]` with the settings of that metric or method. In testbeds and methods, "
        "where a setting takes one value, a list is a grid: every combination is run.\n"
    )


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, StrictConfig)


def _example(name: str) -> list[str]:
    parts = ["## A plugin that works\n", fenced((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"), "python")]
    beside = EXAMPLES / f"{name}.toml"
    if beside.exists():
        parts.append(fenced(beside.read_text(encoding="utf-8"), "toml"))
    return [*parts, fenced(TRY[name], "sh")]


def pages() -> dict[str, str]:
    """Return the index and the page of every hook, by path."""
    return {"docs/hooks.md": index_page()} | {f"docs/hooks/{name}.md": hook_page(name) for name in hook_names()}
