"""`unmemorize board`: the ranked tables of one or several results folders, at any moment of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import RESULTS, SystemPath, shared_options

if TYPE_CHECKING:
    from unmemorize.leaderboard.board import Board

_SAYING: Final = (None, "terminal", "markdown", "html")
"""Forms that say themselves which records were set aside; None is the terminal's."""
_KINDS: Final = ("terminal", "markdown", "csv", "parquet", "latex", "html")


@click.command("board")
@click.argument("sources", metavar="[FOLDER|SUITE]...", nargs=-1)
@click.option("--format", "kind", type=click.Choice(_KINDS), help="Form of the output [default: terminal].")
@click.option("--output", type=SystemPath(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--all-configs", is_flag=True, help="Show every configuration, not only each method's best.")
@shared_options(json="Print every row of the board as JSON.")
def command(sources: tuple[str, ...], kind: str | None, output: Path | None, all_configs: bool, as_json: bool) -> None:
    """Print the leaderboard of results folders.

    FOLDER is a results folder; SUITE stands for ./unmemorize-results/SUITE. Several are merged into one
    board; cells that they share or disagree about are reported. Without an argument: everything in
    ./unmemorize-results.

    The form follows the ending of --output where --format is not given: .md, .csv, .parquet, .tex, .html.
    """
    from unmemorize.cli.comparison import report
    from unmemorize.cli.screen import print_json
    from unmemorize.files.places import check_writable
    from unmemorize.leaderboard.board import build_board
    from unmemorize.leaderboard.captions import set_aside_lines
    from unmemorize.results.merge import merge
    from unmemorize.results.store import Store

    if output is not None:
        check_writable(output, f"choose another place: --output board{output.suffix}")
    folders = _folders(sources)
    readings = [Store(folder).read() for folder in folders]
    merged = merge([reading.frame for reading in readings])
    set_aside = [
        one.said(str(folder)) for folder, reading in zip(folders, readings, strict=True) for one in reading.set_aside
    ]
    board = build_board(merged.frame, all_configs=all_configs, set_aside=set_aside)
    if as_json:
        print_json(board.frame().to_dicts())
    if output is not None or not as_json:
        _write(board, kind or _by_ending(output), output)
    for line in set_aside_lines(board) if output or as_json or kind not in _SAYING else ():
        echo(f"note: {line}", err=True)
    for line in report(merged, [str(folder) for folder in folders]):
        echo(line, err=True)


def _folders(sources: tuple[str, ...]) -> list[Path]:
    """Return the results folders that the arguments mean."""
    from unmemorize.errors import StoreError

    if sources:
        return [folder for source in sources for folder in _named(source)]
    folders = _inside(RESULTS)
    if not folders:
        raise StoreError(
            f"there are no results in ./{RESULTS}",
            expected="a folder of results for each suite that was run here",
            fix="unmemorize run quick, or name a folder: unmemorize board FOLDER",
        )
    return folders


def _named(source: str) -> list[Path]:
    from unmemorize.errors import StoreError, nearest
    from unmemorize.files.places import named
    from unmemorize.results.store import Store

    for place in (named(source, "FOLDER"), RESULTS / source):
        found = [place] if Store(place).exists() else _inside(place)
        if found:
            return found
    known = [folder.name for folder in _inside(RESULTS)]
    listed = ", ".join(nearest(source, known)) or "no results are there yet"
    raise StoreError(
        f"neither ./{source} nor ./{RESULTS / source} holds results",
        expected=f"a results folder, or the name of a suite that was run here: {listed}",
        fix=f"unmemorize board {nearest(source, known)[0]}" if known else "unmemorize run quick",
    )


def _inside(folder: Path) -> list[Path]:
    from unmemorize.results.store import Store

    return sorted(path for path in folder.glob("*") if path.is_dir() and Store(path).exists())


def _by_ending(output: Path | None) -> str:
    from unmemorize.errors import ConfigError, nearest

    if output is None:
        return "terminal"
    ending = output.suffix.lower()
    if ending not in _ENDINGS:
        raise ConfigError(
            f"{output}: no form of a board has the ending {ending!r}",
            expected=f"one of {', '.join(nearest(ending, _ENDINGS))}",
            fix=f"--output {output.stem}.html, or say which form with --format",
        )
    return _ENDINGS[ending]


_ENDINGS = {
    ".md": "markdown", ".csv": "csv", ".parquet": "parquet", ".tex": "latex", ".html": "html", ".txt": "terminal",
}  # fmt: skip


def _write(board: Board, kind: str, output: Path | None) -> None:
    from unmemorize.cli.screen import print_board
    from unmemorize.leaderboard.formats import rendered

    if output is not None:
        _save(rendered(board, kind), output)
        echo(f"wrote {output}", err=True)
    elif kind == "terminal":
        print_board(board)
    else:
        _refuse_binary(kind)
        click.echo(rendered(board, kind), nl=False)


def _save(content: bytes, output: Path) -> None:
    from unmemorize.files.atomic import write_file
    from unmemorize.files.places import writing

    with writing(output, f"choose another place: --output board{output.suffix}"):
        write_file(output, content)


def _refuse_binary(kind: str) -> None:
    import sys

    from unmemorize.errors import StoreError

    if kind == "parquet" and sys.stdout.isatty():
        raise StoreError(
            "a parquet file is no text for a terminal",
            expected="a file to write it to",
            fix="unmemorize board --format parquet --output board.parquet",
        )
