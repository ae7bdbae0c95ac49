"""`unmemorize export`: a testbed as a folder, for other tools and for a look inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import SEED, SystemPath, interruptible, load_registry, plugin_option, shared_options

if TYPE_CHECKING:
    from unmemorize.suite.model import Suite, TestbedEntry


@click.command()
@click.argument("suite")
@click.option("--testbed", metavar="NAME", help="Which one, where the suite has several.")
@click.option("--seed", type=SEED, help="The testbed's seed; the suite's first by default.")
@click.option("--out", type=SystemPath(path_type=Path, file_okay=False), help="A new folder; ./TESTBED by default.")
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the suite's own, or the best one there is.")
@plugin_option
@shared_options(json="Print what was written as JSON.", quiet="Show no progress.", verbose=True, threads=True)
def command(
    suite: str, testbed: str | None, seed: int | None, out: Path | None, device: str | None, plugins: tuple[Path, ...],
    *, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Make a testbed of SUITE and write it to a folder.

    The folder gets the model as plain transformers loads it, with its tokenizer; every set of sequences as JSON lines;
    and testbed.json, which says how all of it came to be.
    """
    from unmemorize import api
    from unmemorize.cli.progress import progress_unless
    from unmemorize.cli.screen import print_json
    from unmemorize.suite import load_suite

    registry = load_registry(plugins)
    loaded = load_suite(suite, registry)
    entry = _chosen(loaded, testbed)
    folder = out or Path(entry.table)
    with interruptible(lambda: _kept(folder)), progress_unless(quiet) as progress:
        written = api.export(
            loaded, entry.name, seed=seed, folder=folder, device=device, registry=registry, progress=progress
        )
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in written]})
        return
    for path in written:
        echo(path)


def _kept(folder: Path) -> str:
    begun = f"remove {folder}, which is not complete; then the" if folder.is_dir() and any(folder.iterdir()) else "the"
    return f"models that were trained are kept in the cache; {begun} same command goes on"


def _chosen(suite: Suite, name: str | None) -> TestbedEntry:
    from unmemorize.errors import ConfigError, UnknownNameError

    names = [entry.name for entry in suite.testbeds]
    if name is None and len(names) > 1:
        raise ConfigError(
            f"{suite.source} has {len(names)} testbeds",
            expected="one of " + ", ".join(names),
            fix=f"unmemorize export {suite.name} --testbed '{names[0]}'",
        )
    for entry in suite.testbeds:
        if name in (None, entry.name):
            return entry
    assert name is not None
    raise UnknownNameError("testbed", name, names, where=suite.source, fix="name one of them with --testbed")
