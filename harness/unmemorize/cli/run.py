"""`unmemorize run`: run a suite, or what is missing of it, and print its leaderboard."""

from __future__ import annotations

from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import Seconds, SuiteChoice, interruptible, shared_options, suite_options

if TYPE_CHECKING:
    from pathlib import Path

    from unmemorize.api import Results
    from unmemorize.errors import KeptError
    from unmemorize.leaderboard.board import Board

_BOARD: Final = "board.md"


@click.command()
@suite_options
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the suite's own, or the best one there is.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes at once; as --set executor.workers=N.")
@click.option("--deadline", type=Seconds(), help="Seconds that a cell may take, once its testbed is loaded.")
@click.option("--memory", metavar="BYTES", help="Bytes that a worker process may hold: 4GiB.")
@click.option("--retry", is_flag=True, help="Try cells again in which worker processes died twice.")
@shared_options(
    json="Print what was run and the rows of the board as JSON.", quiet="Show no progress.", verbose=True, threads=True
)
def command(
    choice: SuiteChoice, workers: int | None, retry: bool, *, as_json: bool, quiet: bool, **settings: Any
) -> None:
    """Run SUITE (a name, or the path of a TOML file) and print its leaderboard.

    What is done already is not run again; what failed is tried again. A run that is killed loses nothing but the cell
    in progress.
    """
    from unmemorize import api
    from unmemorize.cli.progress import progress_unless
    from unmemorize.files.places import check_writable

    registry = api.load_registry(choice.plugins)
    if workers is not None:
        choice = replace(choice, overrides=(*choice.overrides, f"executor.workers={workers}"))
    suite = choice.load(registry)
    folder = choice.folder(suite)
    check_writable(folder / _BOARD, "name another folder with --results")
    with interruptible(lambda: _kept(folder)), progress_unless(quiet) as progress:
        if progress is not None:
            registry.add(progress, name="progress")
        results = api.run(
            suite,
            registry=registry,
            results=folder,
            retry=retry,
            progress=progress,
            **settings,
        )
    _show(results, as_json=as_json)


def _set_aside(count: int) -> str:
    return f", {count} damaged or impossible {'record' if count == 1 else 'records'} set aside" if count else ""


def _kept(folder: Path) -> str:
    from unmemorize.results.store import Store

    return f"{len(Store(folder).done_keys())} done cells are kept in {folder}; the same command goes on with the others"


def _show(results: Results, *, as_json: bool) -> None:
    from unmemorize.cli.screen import print_board, print_json
    from unmemorize.results.store import Store

    report = results.report
    assert report is not None
    board = results.board
    unwritten = _written(board, results.folder)
    if as_json:
        print_json({**report._asdict(), "board": board.frame().to_dicts()})
    else:
        print_board(board)
        echo(
            f"{report.done} run, {report.cached} done before, {report.skipped} skipped, {report.failed} failed"
            f"{_set_aside(report.set_aside)}. "
            f"Records and board: {results.folder}"
        )
    for words in Store(results.folder).bad_per_sequence():
        echo(f"note: {words}; they are set aside, the record is not", err=True)
    if report.failed:
        echo("Failed cells are tried again by the same command.", err=True)
    if report.dead:
        echo(f"{report.dead} cells in which worker processes died twice are tried again by --retry.", err=True)
    if unwritten is not None:
        raise unwritten
    if report.failed or report.dead:
        raise SystemExit(1)


def _written(board: Board, folder: Path) -> KeptError | None:
    from unmemorize.errors import KeptError, UnwritableError
    from unmemorize.files.atomic import write_file
    from unmemorize.files.places import writing
    from unmemorize.leaderboard.markdown import to_markdown

    place = folder / _BOARD
    try:
        with writing(place, f"make room, then: unmemorize board {quote(str(folder))} --output {quote(str(place))}"):
            write_file(place, to_markdown(board).encode("utf-8", "replace"))
    except UnwritableError as error:
        return KeptError(f"{error.what}; all records are kept", expected=error.expected, fix=error.fix)
    return None
