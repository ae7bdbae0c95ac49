"""Lines of JSON to a frame: every readable record, with the unreadable lines counted."""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple

import polars as pl

from unmemorize.results.schema import SCHEMA, empty

_UNREADABLE: Final = (pl.exceptions.PolarsError, RuntimeError, ValueError)


class ParsedLines(NamedTuple):
    """What a file of records holds."""

    frame: pl.DataFrame
    """One row per readable line, in the order of the file."""
    torn: int
    """Lines that are no record: torn by a killed process, or written by something else."""


def read_lines(content: bytes) -> ParsedLines:
    """Parse lines of JSON; lines that are no record are counted and left out."""
    content = content.removeprefix(codecs.BOM_UTF8)  # as some editors put it in front
    count, parsed = _untorn(content) or _line_by_line(content)
    complete = pl.all_horizontal(pl.col("schema_version", "key", "status", "method").is_not_null())
    frame = parsed.filter(complete)
    return ParsedLines(frame, count - frame.height)


class _Parsed(NamedTuple):
    lines: int
    frame: pl.DataFrame


def _untorn(content: bytes) -> _Parsed | None:
    """Parse a file in which every line is an object, without copying it; None where one is not."""
    lines = content.count(b"\n")
    if not lines or not content.startswith(b"{") or content.count(b"}\n") != lines:
        return None
    if content.count(b"\n{") != lines - 1 or not content.endswith(b"\n"):
        return None
    frame = _objects(content, lines)
    return None if frame is None else _Parsed(lines, frame)


def _line_by_line(content: bytes) -> _Parsed:
    """Parse what can be parsed of a file that was torn, or that something else has written to."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    stripped = [line.strip() for line in lines]
    whole = [line for line in stripped if line.startswith(b"{") and line.endswith(b"}")]
    return _Parsed(len(lines), _parse(whole) if whole else empty())


def _parse(lines: list[bytes]) -> pl.DataFrame:
    """Parse all lines at once; where that fails, halve them until the bad ones stand alone."""
    frame = _objects(b"\n".join(lines), len(lines))
    if frame is not None:
        return frame
    if len(lines) == 1:
        return empty()
    middle = len(lines) // 2
    return pl.concat([_parse(lines[:middle]), _parse(lines[middle:])])


def _objects(content: bytes, lines: int) -> pl.DataFrame | None:
    """Return a row for each of so many lines, or None where some line is not one object of the schema."""
    try:
        frame = pl.read_ndjson(content, schema=dict(SCHEMA))
    except _UNREADABLE:
        return None
    return frame if frame.height == lines else None
