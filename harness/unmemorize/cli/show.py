"""`unmemorize show NAME`: what it does, its settings, where it comes from, and how to write it in a suite."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import load_registry, plugin_option, shared_options

if TYPE_CHECKING:
    from unmemorize.models.shapes import ListedMLP
    from unmemorize.registry import Registry
    from unmemorize.registry.entries import Kind
    from unmemorize.suite import Suite


@click.command()
@click.argument("name")
@plugin_option
@shared_options(json="Print the JSON schema of its settings.")
def command(name: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """Show the method, metric, provider, layout, executor or suite called NAME, or the MLPs of a model's folder."""
    from unmemorize.cli.screen import print_json
    from unmemorize.files.places import named

    registry = load_registry(plugins)
    if (named(name, "NAME") / "config.json").is_file() and not as_json:
        _show_model(registry, name)
        return
    found: list[Kind] = ["suite"] if name.endswith(".toml") else registry.kinds(name)
    if as_json:
        shown = [_as_json(registry, kind, name) for kind in found]
        print_json(shown[0] if len(shown) == 1 else shown)
        return
    for kind in found:
        _show_suite(registry, name) if kind == "suite" else _show(registry, kind, name)


def _as_json(registry: Registry, kind: Kind, name: str) -> dict[str, Any]:
    if kind == "suite":
        from unmemorize.suite import load_suite

        return load_suite(name, registry).model_dump(mode="json")
    value = registry.get(kind, name)
    if kind == "layout":
        return dataclasses.asdict(value)
    config = getattr(value, "Config", None)
    return {} if config is None else config.model_json_schema()


def _show(registry: Registry, kind: Kind, name: str) -> None:
    from unmemorize.cli.list import facts
    from unmemorize.cli.screen import print_table
    from unmemorize.suite.fields import describe

    value = registry.get(kind, name)
    echo(f"{name} ({kind})", bold=True)
    about = repr(value) if kind == "layout" else value.__dict__.get("__doc__")
    echo(f"\n{inspect.cleandoc(about or 'It has no description.')}\n")
    for label, text in _facts(kind, value, facts(registry, kind, name)):
        echo(f"{label + ':':<10} {text}")
    config = getattr(value, "Config", None)
    if config is None:
        return
    echo()
    rows = [[field.name, field.type, field.default, field.range, field.sentence] for field in describe(config)]
    if rows:
        print_table("settings", ["setting", "type", "default", "range", "meaning"], rows)
    else:
        echo("It has no settings.")
    echo(f"\nIn a suite:\n\n{_snippet(kind, name, config)}\n")


def _facts(kind: Kind, value: Any, row: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("paper", getattr(value, "paper", ""))]
    if kind == "method":
        lines += [("stage", row["stage"]), ("needs", ", ".join(row["needs"]) or "nothing")]
    if kind == "metric":
        low, high = value.range
        lines += [("kind", row["kind"]), ("range", f"{low:g} to {high:g}, {row['better']} is better")]
    if kind == "provider":
        lines.append(("trains", "yes" if row["trains"] else "no: methods that act in training do not apply"))
    lines.append(("from", f"{row['distribution']} {row['version']}, plugin {row['plugin']!r}"))
    lines.append(("file", _file(value)))
    return [(label, text) for label, text in lines if text]


def _file(value: Any) -> str:
    try:
        return str(inspect.getsourcefile(value) or "")
    except TypeError:  # a class typed into a console has no file
        return ""


def _snippet(kind: Kind, name: str, config: Any) -> str:
    from unmemorize.suite.fields import snippet

    if kind == "provider":
        return snippet("testbed.mine", config, first={"provider": name})
    if kind == "executor":
        return f'[run]\nexecutor = "{name}"\n\n{snippet("run.executor_config", config)}'
    return snippet(f"{kind}.{name}", config)


def _show_model(registry: Registry, folder: str) -> None:
    """Show where the MLPs of a model are, how they were found and, where they were not, which methods act on it."""
    from unmemorize.models.origins import config_of, find_origin

    config = config_of(find_origin(folder))
    kind = str(config.get("model_type"))
    mlps, note = _mlps_by_name(registry, folder, config, kind) or _mlps_loaded(registry, folder)
    echo(f"{folder} (model of type {kind!r})\n", bold=True)
    for mlp in mlps:
        echo(f"block {mlp.layer}: {mlp.neurons} neurons, {', '.join(mlp.matrices)}")
    echo(note or f"by the layout of {kind!r}")


def _mlps_by_name(
    registry: Registry, folder: str, config: dict[str, Any], kind: str
) -> tuple[list[ListedMLP], str] | None:
    from unmemorize.files.places import located
    from unmemorize.models.shapes import listed_mlps

    if kind not in registry.names("layout"):
        return None
    mlps = listed_mlps(located(folder, "model"), config, registry.layout(kind))
    return (mlps, "") if mlps else None


def _mlps_loaded(registry: Registry, folder: str) -> tuple[list[ListedMLP], str]:
    from unmemorize.contracts.testbed import Sequences, Testbed
    from unmemorize.execution.architecture import fill_mlps
    from unmemorize.models.shapes import ListedMLP
    from unmemorize.models.source import open_model, source_of

    model = open_model(source_of(folder)).model
    testbed = Testbed("shown", model, forget=Sequences.from_rows([[0, 0]], prompt=1))
    fill_mlps(testbed, registry)
    listed = [ListedMLP(mlp.layer, mlp.neurons, tuple(one.name for one in mlp.matrices)) for mlp in testbed.mlps]
    return listed, testbed.mlps_note


def _show_suite(registry: Registry, name: str) -> None:
    from unmemorize.suite import load_suite

    suite = load_suite(name, registry)
    echo(f"{suite.name} (suite)", bold=True)
    echo(f"\n{suite.description or 'It has no description.'}\n")
    for label, text in _suite_facts(suite):
        echo(f"{label + ':':<10} {text}")
    echo(f"\n`unmemorize plan {name}` shows its cells, `unmemorize run {name}` runs them.")


def _suite_facts(suite: Suite) -> list[tuple[str, str]]:
    methods = [f"{entry.name} ({_configurations(len(entry.configs))})" for entry in suite.methods]
    return [
        ("testbeds", ", ".join(f"{entry.name} ({entry.provider})" for entry in suite.testbeds)),
        ("methods", ", ".join(["base", *methods])),
        ("metrics", ", ".join(entry.name for entry in suite.metrics)),
        ("score", f"{suite.memorization} against {suite.utility}"),
        ("seeds", ", ".join(map(str, suite.seeds))),
        ("file", str(suite.path)),
    ]


def _configurations(count: int) -> str:
    return f"{count} configuration" + ("" if count == 1 else "s")
