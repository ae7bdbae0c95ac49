"""Records as lines of JSON with a digest, and back: what is damaged or impossible is set aside, with the reason."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, cast

import polars as pl
from pydantic import ConfigDict, Field, Json, ValidationError, create_model

from unmemorize.files.digests import bytes_digest
from unmemorize.results.keys import KEY_VERSION, key_of
from unmemorize.results.record import Record, RecordFields, Value
from unmemorize.results.schema import SCHEMA, SCHEMA_VERSION, TEXT_COLUMNS, empty, from_row, to_row

LONGEST: Final = 2**24
"""Bytes of the longest line that is written and read."""
_SEAL: Final = re.compile(rb'\{"digest":"([0-9a-f]{32})",')
_KEY: Final = re.compile(rb'"key": ?"([0-9A-Za-z_-]{1,64})"')
_REAL_KEY: Final = re.compile(r"[0-9a-f]{32}")
_UNREADABLE: Final = (pl.exceptions.PolarsError, RuntimeError, ValueError)
_NEWEST: Final = 1_000
"""No release will have a schema version like this: it is damage."""
_SAID: Final = 200
"""Characters of a reason that are kept."""


class SetAside(NamedTuple):
    """A line that is not believed."""

    file: str
    """Its file, as seen from the results folder."""
    line: int
    """Its number, from 1."""
    reason: str
    key: str | None
    """The key of the cell that it seems to be of."""

    def said(self, folder: str = "") -> str:
        """Return where it is and what is wrong with it, with the name of its results folder where there are several."""
        place = f"{folder}/{self.file}" if folder else self.file
        return f"{place}, line {self.line}: {self.reason}"


class Lines(NamedTuple):
    """What a file of records holds."""

    frame: pl.DataFrame
    """One row per record that is believed, in the order of the file."""
    set_aside: list[SetAside]
    """The other lines; blank ones are none."""
    newest: int
    """The newest schema version of any line, also one that this release cannot read."""


class _StrictValue(Value):
    model_config = ConfigDict(allow_inf_nan=False)


class _StrictRecord(RecordFields):
    model_config = ConfigDict(allow_inf_nan=False)


_as_json: Any = Json
_fields: dict[str, Any] = {name: (_as_json[Record.model_fields[name].annotation], ...) for name in TEXT_COLUMNS}
_fields |= {
    "schema_version": (Annotated[int, Field(ge=1, le=SCHEMA_VERSION)], ...),
    "values": (list[_StrictValue], ...),
}
_Line = cast("type[RecordFields]", create_model("_Line", __base__=_StrictRecord, **_fields))
"""A line as it must be: a record whose columns of free shape are JSON text."""


def encode(record: Record) -> bytes:
    """Return the line of a record, with its digest and its end.

    Raises:
        ValueError: it could not be read back.
    """
    line = sealed(to_row(record))
    back = read_lines(line)
    if back.set_aside:
        raise ValueError(back.set_aside[0].reason)
    if from_row(back.frame.row(0, named=True)) != from_row(json.loads(line)):
        raise ValueError("it would not be read back as it is")
    return line


def sealed(row: Mapping[str, Any]) -> bytes:
    """Return the line of a row of the schema, whatever it holds, with its digest and its end."""
    body = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=str)
    rest = body.encode("utf-8", "replace")[1:]
    return b'{"digest":"%s",%s\n' % (bytes_digest(rest).encode(), rest)


def read_lines(content: bytes, file: str = "") -> Lines:
    """Return the records of a file of lines of JSON, and the lines that are set aside.

    Args:
        content: the bytes of the file.
        file: its name.
    """
    content = content.removeprefix(codecs.BOM_UTF8)  # as some editors put it in front
    good: list[_Numbered] = []
    aside: list[SetAside] = []
    newest = 0
    for number, raw in enumerate(content.split(b"\n"), 1):
        if line := raw.strip():
            try:
                newest = max(newest, _version_of(line))
                good.append(_Numbered(number, line))
            except ValueError as problem:
                aside.append(_set_aside(file, number, line, str(problem)))
    frames = []
    for first, parsed in _parsed(good):
        if parsed is None:
            aside.append(_set_aside(file, first.number, first.content, "its columns cannot be read"))
        else:
            frames.append(parsed)
    frame = pl.concat(frames or [empty()]).with_columns(pl.col("deaths").fill_null(0))  # 0.1.0 wrote none
    return Lines(frame, sorted(aside, key=lambda one: one.line), newest)


class _Numbered(NamedTuple):
    number: int
    content: bytes


def _set_aside(file: str, number: int, line: bytes, reason: str) -> SetAside:
    key = _KEY.search(line)
    return SetAside(file, number, reason[:_SAID], key[1].decode() if key else None)


def _version_of(line: bytes) -> int:
    """Return the schema version of a line whose digest fits and that holds a possible record, or of a newer release.

    Raises:
        ValueError: it is neither; says why.
    """
    if len(line) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    seal = _SEAL.match(line)
    if seal is not None and bytes_digest(line[seal.end() :]).encode() != seal[1]:
        raise ValueError("it is damaged: its digest is that of another text")
    try:
        record = _Line.model_validate_json(line, strict=True)
    except ValidationError as error:
        newer = _newer(line)
        if newer:
            return newer
        raise ValueError(_first(error)) from error
    version = int(record.schema_version)  # type: ignore[attr-defined]
    if seal is None:
        _check_unsealed(line, record, version)
    return version


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        said = f"it is no JSON: {said.removeprefix('Invalid JSON: ').partition(' at line')[0]}"
    return f"{place}: {said}" if place else said


def _newer(line: bytes) -> int:
    """Return the schema version of a line that is newer than this release, or 0."""
    try:
        version = json.loads(line)["schema_version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return 0
    return version if type(version) is int and SCHEMA_VERSION < version < _NEWEST else 0


def _check_unsealed(line: bytes, record: RecordFields, version: int) -> None:
    """Hold a line without a digest, as 0.1.0 wrote them, against everything that can be known of it."""
    if version != 1:
        raise ValueError("it is damaged: its digest is missing")
    json.loads(line, object_pairs_hook=_without_duplicates)
    if _REAL_KEY.fullmatch(record.key) and record.key_version == KEY_VERSION and key_of(record) != record.key:
        raise ValueError("its key is not that of its settings")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


def _parsed(lines: list[_Numbered]) -> Iterator[tuple[_Numbered, pl.DataFrame | None]]:
    """Parse all lines at once; where that fails, halve them until the bad ones stand alone."""
    if not lines:
        return
    frame = _objects([line.content for line in lines])
    if frame is not None or len(lines) == 1:
        yield lines[0], frame
        return
    middle = len(lines) // 2
    yield from _parsed(lines[:middle])
    yield from _parsed(lines[middle:])


def _objects(lines: list[bytes]) -> pl.DataFrame | None:
    """Return a row for each line, or None where some line is not one object of the schema."""
    try:
        frame = pl.read_ndjson(b"\n".join(lines), schema=dict(SCHEMA))
    except _UNREADABLE:
        return None
    return frame if frame.height == len(lines) else None
