"""`unmemorize plugins`: what is loaded, what is broken, and what corrects it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import load_registry, plugin_option, shared_options

if TYPE_CHECKING:
    from unmemorize.registry import PluginInfo


@click.command()
@plugin_option
@shared_options()
def command(plugins: tuple[Path, ...], as_json: bool) -> None:
    """Show every plugin with its version and what it provides; broken ones with the error and the fix."""
    from unmemorize.cli.screen import print_json, print_table

    registry = load_registry(plugins)
    infos = registry.plugins()
    if as_json:
        print_json([dataclasses.asdict(info) for info in infos])
        return
    if not infos:
        echo("No plugin is installed. The built-in ones come with `pip install unmemorize`.")
        return
    rows = [[info.status, info.name, info.distribution, info.version, _provides(info)] for info in infos]
    print_table("plugins", ["status", "plugin", "distribution", "version", "provides"], rows)
    for info in infos:
        if info.status == "broken":
            echo(f"\n{info.label} is broken\n  error: {info.error}\n  fix: {info.fix}")
        for note in info.notes:
            echo(f"\nnote: {info.label}: {note}")
    for collision in registry.collisions():
        echo(
            f"\nthe {collision.kind} name {collision.name!r} cannot be used"
            f"\n  error: registered by {' and '.join(collision.origins)}"
            "\n  fix: uninstall one of them, or restrict loading with UNMEMORIZE_PLUGINS"
        )


def _provides(info: PluginInfo) -> str:
    return "; ".join(f"{kind}s: {', '.join(names)}" for kind, names in info.provides.items())
