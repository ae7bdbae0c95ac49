"""A board as one flat frame in a file: CSV for spreadsheets, parquet for programs."""

from __future__ import annotations

import io

import polars as pl

from unmemorize.leaderboard.board import Board
from unmemorize.untrusted import cell


def to_csv(board: Board) -> str:
    """Return every row of every table as CSV; lists are joined with `;`, all numbers are unrounded.

    Texts are quoted; one that a spreadsheet would compute (`=1+1`) gets an apostrophe in front.
    """
    frame = board.frame().with_columns(pl.col("needs", "flags").list.join(";"))
    texts = [
        pl.Series(column.name, [None if text is None else cell(text) for text in column], dtype=pl.String)
        for column in frame
        if column.dtype == pl.String
    ]
    return frame.with_columns(texts).write_csv(quote_style="non_numeric")


def to_parquet(board: Board) -> bytes:
    """Return every row of every table as a parquet file."""
    buffer = io.BytesIO()
    board.frame().write_parquet(buffer)
    return buffer.getvalue()
