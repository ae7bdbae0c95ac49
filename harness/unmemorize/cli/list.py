"""`unmemorize list`: one row for every method, metric, provider, layout, executor and suite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import load_registry, plugin_option, shared_options

if TYPE_CHECKING:
    from unmemorize.registry import Registry
    from unmemorize.registry.entries import Kind

_PLURALS = ("methods", "metrics", "providers", "layouts", "executors", "suites")


@click.command(name="list")
@click.argument("kind", type=click.Choice(_PLURALS), required=False)
@plugin_option
@shared_options()
def command(kind: str | None, plugins: tuple[Path, ...], as_json: bool) -> None:
    """List methods, metrics, providers, layouts, executors and suites, or one of these KINDs."""
    from unmemorize.cli.screen import print_json

    registry = load_registry(plugins)
    kinds = [kind] if kind else list(_PLURALS)
    found = {plural: [facts(registry, plural[:-1], name) for name in registry.names(_kind(plural))] for plural in kinds}
    if as_json:
        print_json({**found, "broken": [info.label for info in registry.plugins() if info.status == "broken"]})
        return
    for plural, rows in found.items():
        _print(plural, rows)
    _print_trouble(registry)


def _kind(plural: str) -> Kind:
    return plural[:-1]  # type: ignore[return-value]


def facts(registry: Registry, kind: Any, name: str) -> dict[str, Any]:
    """Return what one row says about one registered thing."""
    value, origin = registry.get(kind, name), registry.origin(kind, name)
    row = {"name": name, **_specific(kind, value), "summary": _summary(kind, value)}
    return {**row, "plugin": origin.plugin, "distribution": origin.distribution, "version": origin.version}


def _specific(kind: str, value: Any) -> dict[str, Any]:
    if kind == "method":
        return {"stage": value.stage, "needs": sorted(value.needs)}
    if kind == "metric":
        return {"kind": value.kind, "better": value.direction}
    return {"trains": value.trains()} if kind == "provider" else {}


def _summary(kind: str, value: Any) -> str:
    if kind == "suite":
        import tomllib

        return str(tomllib.loads(Path(value).read_text(encoding="utf-8-sig")).get("description", ""))
    if kind == "layout":
        return f"{value.blocks}: {'; '.join(', '.join(names) for names in value.mlps)}"
    return first_sentence(value.__dict__.get("__doc__") or "")


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    joined = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)(?<!\bal\.) (?=[A-Z])", joined)[0]


def _print(plural: str, rows: list[dict[str, Any]]) -> None:
    from unmemorize.cli.screen import print_table
    from unmemorize.registry.discovery import is_own

    if not rows:
        echo(f"{plural}: none is registered\n")
        return
    columns = [column for column in rows[0] if column not in ("plugin", "distribution", "version")]
    lines = []
    for row in rows:
        foreign = "" if is_own(row["distribution"]) else f"{row['distribution']} {row['version']}"
        lines.append([*(_cell(column, row[column]) for column in columns), foreign])
    print_table(plural, [*columns, "from"], lines)
    echo()


def _cell(column: str, value: Any) -> str:
    if isinstance(value, bool):
        return column if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value)


def _print_trouble(registry: Registry) -> None:
    broken = [info.label for info in registry.plugins() if info.status == "broken"]
    if broken:
        echo(f"Broken and not loaded: {', '.join(broken)}. `unmemorize plugins` shows why.")
    for collision in registry.collisions():
        origins = " and ".join(collision.origins)
        echo(f"Not usable: the {collision.kind} {collision.name!r}, registered by {origins}.")
