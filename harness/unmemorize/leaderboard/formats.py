"""The kinds of output that a board can take, by name."""

from __future__ import annotations

from typing import Final

from unmemorize.errors import UnknownNameError
from unmemorize.leaderboard.board import Board

FORMATS: Final = ("terminal", "markdown", "csv", "parquet", "latex", "html")


def rendered(board: Board, kind: str) -> bytes:
    """Return the board in the format `kind`, ready to be written to a file.

    Raises:
        UnknownNameError: there is no such format.
    """
    from unmemorize.leaderboard.flat import to_csv, to_parquet
    from unmemorize.leaderboard.latex import to_latex
    from unmemorize.leaderboard.markdown import to_markdown
    from unmemorize.leaderboard.page import to_html
    from unmemorize.leaderboard.terminal import to_text

    if kind == "parquet":
        return to_parquet(board)
    writers = {
        "terminal": to_text, "markdown": to_markdown, "csv": to_csv, "latex": to_latex, "html": to_html,
    }  # fmt: skip
    if kind not in writers:
        raise UnknownNameError("format", kind, FORMATS, where="--format")
    return writers[kind](board).encode()
