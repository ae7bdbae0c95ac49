"""`unmemorize new`: a complete plugin package of one's own, to start from."""

from __future__ import annotations

from pathlib import Path

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import SystemPath, shared_options
from unmemorize.scaffold import KINDS, STAGES, PackagePlan, write_package


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--stage",
    type=click.Choice(STAGES),
    help="When a method acts: it edits weights (the default), trains on, wraps training, or wraps decoding.",
)
@click.option(
    "--folder",
    type=SystemPath(path_type=Path, file_okay=False),
    help="Where to write it; ./unmemorize-NAME by default.",
)
@shared_options(json="Print what was written as JSON.")
def command(kind: str, name: str, stage: str | None, folder: Path | None, as_json: bool) -> None:
    """Write a plugin package: an example that works, its tests, README and CI file.

    NAME is the name in snake_case under which suites and boards know it.
    """
    from unmemorize.cli.screen import print_json
    from unmemorize.errors import ConfigError
    from unmemorize.registry import Registry

    if stage is not None and kind != "method":
        raise ConfigError(
            f"--stage {stage} says when a method acts, and this is a {kind}",
            expected="--stage with `new method` only",
            fix=f"unmemorize new {kind} {name}",
        )
    registry = Registry.load()
    if name in registry.names(kind):  # type: ignore[arg-type]
        raise ConfigError(
            f"there is a {kind} {name!r} already, from {registry.origin(kind, name).distribution}",  # type: ignore[arg-type]
            expected="a name of its own: two plugins with one name cannot be used together",
            fix=f"unmemorize new {kind} my_{name}",
        )
    plan = PackagePlan(kind, name, stage or STAGES[0])
    place = folder or Path(plan.distribution)
    written = write_package(plan, place)
    if as_json:
        print_json({"folder": str(place), "files": [str(path) for path in written]})
        return
    echo(f"{place}/")
    for path in written:
        echo(f"  {path.relative_to(place)}")
    echo(
        f"\nIt works as it is. Next:\n"
        f"  cd {place}\n"
        f"  pip install -e '.[test]'\n"
        f"  unmemorize check {name}\n"
        f"  pytest\n"
        f"  {plan.words()['try']}\n"
        f"Then open {plan.module}.py and make it yours."
    )
