"""`unmemorize run`: run a suite, or what is missing of it, and print its leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from unmemorize.cli.options import SuiteChoice, suite_options

if TYPE_CHECKING:
    from unmemorize.api import Results


@click.command()
@suite_options
@click.option("--device", help="cpu, cuda, cuda:1, mps; by default the suite's own, or the best one there is.")
@click.option("--executor", help="Where groups of cells run (`unmemorize list executors`); by default this process.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), help="Seconds that a method may take.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(choice: SuiteChoice, device: str | None, executor: str | None, deadline: float | None, quiet: bool) -> None:
    """Run SUITE (a name, or the path of a TOML file) and print its leaderboard.

    What is done already is not run again; what failed is tried again. A run that is killed loses nothing but the cell
    in progress.
    """
    from contextlib import ExitStack

    from unmemorize import api
    from unmemorize.cli.progress import TerminalProgress

    registry = api.load_registry(choice.plugins)
    suite = choice.load(registry)
    folder = choice.folder(suite)
    with ExitStack() as stack:
        progress = None
        if not quiet:
            progress = stack.enter_context(TerminalProgress())
            registry.add(progress, name="progress")
        results = api.run(
            suite,
            registry=registry,
            results=folder,
            device=device,
            executor=executor,
            deadline=deadline,
            progress=progress,
        )
    _show(results)


def _show(results: Results) -> None:
    import shutil
    import sys

    from unmemorize.leaderboard.markdown import to_markdown
    from unmemorize.leaderboard.terminal import PIPED_WIDTH, to_text

    report = results.report
    assert report is not None
    live = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if live else PIPED_WIDTH
    board = results.board
    click.echo(to_text(board, width=width, color=live))
    (results.folder / "board.md").write_text(to_markdown(board), encoding="utf-8")
    click.echo(
        f"{report.done} run, {report.cached} done before, {report.skipped} skipped, {report.failed} failed. "
        f"Records and board: {results.folder}"
    )
    if report.failed:
        click.echo("Failed cells are tried again by the same command.", err=True)
        raise SystemExit(1)
