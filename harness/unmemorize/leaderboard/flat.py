"""A board as one flat frame in a file: CSV for spreadsheets, parquet for programs."""

from __future__ import annotations

import io

import polars as pl

from unmemorize.leaderboard.board import Board


def to_csv(board: Board) -> str:
    """Return every row of every table as CSV; lists are joined with `;`, all numbers are unrounded."""
    lists = pl.col("needs", "flags").list.join(";")
    return board.frame().with_columns(lists).write_csv()


def to_parquet(board: Board) -> bytes:
    """Return every row of every table as a parquet file."""
    buffer = io.BytesIO()
    board.frame().write_parquet(buffer)
    return buffer.getvalue()
