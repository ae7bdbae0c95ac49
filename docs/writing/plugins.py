"""The pages about what is registered: methods, metrics, providers, and their settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from unmemorize.registry.manager import Registry
from unmemorize.suite.fields import describe
from writing.markdown import NOTE, code, table


def methods_page(registry: Registry) -> str:
    """Every method."""
    return _page(
        registry,
        "method",
        "Methods",
        lambda method: [("stage", method.stage), ("needs", ", ".join(sorted(method.needs)) or "nothing")],
    )


def metrics_page(registry: Registry) -> str:
    """Every metric."""
    return _page(
        registry,
        "metric",
        "Metrics",
        lambda m: [("kind", m.kind), ("range", f"{m.range[0]:g} to {m.range[1]:g}, {m.direction} is better")],
    )


def providers_page(registry: Registry) -> str:
    """Every provider, and the types of models whose MLPs are known."""
    trains = {True: "trains from scratch", False: "does not train from scratch"}
    page = _page(registry, "provider", "Providers", lambda provider: [("training", trains[provider.trains()])])
    return page + "\n" + _layouts(registry)


def _layouts(registry: Registry) -> str:
    """The table of layouts: one line for each row."""
    rows = dict.fromkeys(registry.layout(name) for name in registry.names("layout"))
    lines = [(_codes(row.model_types), code(row.blocks), "; ".join(map(_codes, row.mlps))) for row in rows]
    return (
        "## Types of models\n\n"
        "Methods that look at or edit neurons and weights have to know where the MLPs are. That is known of these "
        "types (`config.model_type`), experts included:\n\n"
        + table(("types", "blocks", "MLPs of a block, `down` last"), lines)
        + "\nThe MLPs of another type are found by structure, where a pass over six tokens shows them: in every block, "
        "a linear map that feeds the residual stream and has its input from one or two others at the same position. "
        "Cells then have the flag `layout-by-structure`, and the note `layout` holds the row to look at; returned from "
        "[register_layouts](hooks/register_layouts.md), it confirms or corrects what was found. `unmemorize show "
        "FOLDER` prints the MLPs of a model. Where structure does not tell, methods that need MLPs are skipped, and "
        "the reason names the methods that act all the same.\n"
    )


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(map(code, names))


def _page(registry: Registry, kind: Any, title: str, facts: Callable[[Any], list[tuple[str, str]]]) -> str:
    """One section for each registered class of a kind: what it does, its facts, its settings."""
    parts = [f"# {title}\n"]
    for name in registry.names(kind):
        value = registry.get(kind, name)
        parts.append(f"## {name}\n\n{inspect.cleandoc(value.__dict__.get('__doc__') or '')}\n")
        lines = [(label, text) for label, text in [*facts(value), ("paper", getattr(value, "paper", ""))] if text]
        parts.append("\n".join(f"- {label}: {text}" for label, text in lines) + "\n" if lines else "")
        parts.append(settings(value.Config))
    return NOTE + "\n".join(part for part in parts if part)


def settings(config: Any) -> str:
    """Return a table of the settings of a config class; nothing where it has none."""
    rows = [
        (code(field.name), code(field.type), code(field.default), code(field.range), field.sentence)
        for field in describe(config)
    ]
    return table(("setting", "type", "default", "range", "meaning"), rows)
