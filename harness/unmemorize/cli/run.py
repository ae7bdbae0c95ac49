"""`unmemorize run`: run a suite, or what is missing of it, and print its leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import Seconds, SuiteChoice, interruptible, shared_options, suite_options

if TYPE_CHECKING:
    from pathlib import Path

    from unmemorize.api import Results


@click.command()
@suite_options
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the suite's own, or the best one there is.")
@click.option("--deadline", type=Seconds(), help="Seconds that a method may take.")
@shared_options(
    json="Print what was run and the rows of the board as JSON.", quiet="Show no progress.", verbose=True, threads=True
)
def command(choice: SuiteChoice, device: str | None, deadline: float | None, *, as_json: bool, quiet: bool) -> None:
    """Run SUITE (a name, or the path of a TOML file) and print its leaderboard.

    What is done already is not run again; what failed is tried again. A run that is killed loses nothing but the cell
    in progress.
    """
    from unmemorize import api
    from unmemorize.cli.progress import progress_unless

    registry = api.load_registry(choice.plugins)
    suite = choice.load(registry)
    folder = choice.folder(suite)
    with interruptible(lambda: _kept(folder)), progress_unless(quiet) as progress:
        if progress is not None:
            registry.add(progress, name="progress")
        results = api.run(
            suite,
            registry=registry,
            results=folder,
            device=device,
            deadline=deadline,
            progress=progress,
        )
    _show(results, as_json=as_json)


def _kept(folder: Path) -> str:
    from unmemorize.results.store import Store

    return f"{len(Store(folder).done_keys())} done cells are kept in {folder}; the same command goes on with the others"


def _show(results: Results, *, as_json: bool) -> None:
    from unmemorize.cli.screen import print_board, print_json
    from unmemorize.leaderboard.markdown import to_markdown

    report = results.report
    assert report is not None
    board = results.board
    (results.folder / "board.md").write_text(to_markdown(board), encoding="utf-8")
    if as_json:
        print_json({**report._asdict(), "board": board.frame().to_dicts()})
    else:
        print_board(board)
        echo(
            f"{report.done} run, {report.cached} done before, {report.skipped} skipped, {report.failed} failed. "
            f"Records and board: {results.folder}"
        )
    if report.failed:
        echo("Failed cells are tried again by the same command.", err=True)
        raise SystemExit(1)
