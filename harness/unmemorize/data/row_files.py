"""Files of sequences, row by row as they stand there: JSON lines, parquet, numpy, torch, text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unmemorize.data.row_source import FIELDS, RowSource, array_rows, as_fields
from unmemorize.errors import DataError, nearest
from unmemorize.files.decoding import decoded
from unmemorize.files.error_reasons import reason_of
from unmemorize.files.parsing import parsed
from unmemorize.files.places import located

HUB = "hf://"


def is_row_file(place: str) -> bool:
    """Whether `place` is the name of a file of sequences, and not of a corpus of texts."""
    return Path(place).suffix.lower() in _READERS


def row_files(place: str, setting: str) -> list[Path]:
    """Return the local files that `place` names; none where it lies on the hub.

    Raises:
        DataError: there is no such file, or it is of no known format.
    """
    if place.startswith(HUB):
        return []
    path = located(place, setting)
    if not path.is_file() or path.suffix.lower() not in _READERS:
        special = "folder" if path.is_dir() else "device or pipe"
        kind = f"file {path.suffix or 'without suffix'}" if path.is_file() else special
        raise DataError(
            f"{setting} = {place!r} is a {kind}",
            expected=f"a file of sequences: {', '.join(nearest(path.suffix, _READERS))}",
            fix="name a file of one of these; JSON is written as JSON lines: one object on a line, in a file *.jsonl; "
            "a table as polars.read_csv(FILE).write_parquet(...)",
        )
    return [path]


def open_file(place: str, setting: str) -> RowSource:
    """Return the rows of the file of sequences that `place` names, for the setting called `setting`.

    Args:
        place: `*.jsonl` (an object, a list of ids or a text on each line), `*.parquet` (columns named as `FIELDS`; also
            as `hf://datasets/OWNER/NAME/FILES`, stars allowed), `*.npy` and `*.pt` (an (N, T) array of ids; `*.pt` also
            a list of rows), `*.txt` (one text on each line; texts of several lines go into a *.jsonl).
        setting: what errors call it.

    Raises:
        DataError: no such file, or it cannot be read.
    """
    name = f"{setting} = {place!r}"
    files = row_files(place, setting)
    return _READERS[files[0].suffix.lower()](files[0], name) if files else _parquet(place, name)


def _text_lines(path: Path, name: str) -> tuple[list[int], list[str]]:
    """Return the numbers, from 1, and the texts of the lines that are not blank.

    Only line feeds end a line: a text may hold other separators of lines.
    """
    try:
        lines = decoded(path.read_bytes(), name, path.name).split("\n")
    except OSError as error:
        raise _unreadable(name, error) from error
    kept = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    return [number for number, _ in kept], [line for _, line in kept]


def _text(path: Path, name: str) -> RowSource:
    numbers, lines = _text_lines(path, name)
    return RowSource(name, numbers, lambda index: {"text": lines[index]}, "line")


def _jsonl(path: Path, name: str) -> RowSource:
    numbers, lines = _text_lines(path, name)

    def read(index: int) -> Mapping[str, Any]:
        try:
            value = parsed(json.loads, lines[index])
        except ValueError as error:
            raise DataError(
                f"{name}, line {numbers[index]}: not JSON: {error}",
                expected='one JSON object on each line: {"tokens": [464, 2068, ...]} or {"text": "..."}',
                fix=f"correct or remove line {numbers[index]}",
            ) from error
        return as_fields(value)

    return RowSource(name, numbers, read, "line")


def _parquet(path: Path | str, name: str) -> RowSource:
    import polars as pl

    try:
        there = pl.scan_parquet(path).collect_schema().names()
        wanted = [field for field in FIELDS if field in there]
        frame = pl.scan_parquet(path).select(wanted).collect() if wanted else None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"{name} cannot be read: {reason_of(error)}",
            expected="parquet files; for hf:// paths a connection to the hub",
            fix="check the path and the connection; a private data set needs `hf auth login`",
        ) from error
    if frame is None:
        raise DataError(
            f"{name} has none of the columns that say what a sequence is",
            expected=f"a column `tokens` (lists of ids) or `text`; it has {', '.join(nearest('tokens', there))}",
            fix="rename the column, e.g. polars.read_parquet(...).rename({'input_ids': 'tokens'}).write_parquet(...)",
        )
    table = frame

    def read(index: int) -> Mapping[str, Any]:
        return as_fields({field: value for field, value in table.row(index, named=True).items() if value is not None})

    return RowSource(name, range(len(table)), read)


def _npy(path: Path, name: str) -> RowSource:
    import numpy as np

    try:
        array = np.lib.format.open_memmap(path, mode="r")  # which believes no header that is larger than the file
    except OSError as error:
        raise _unreadable(name, error) from error
    except Exception as error:  # whatever a damaged header makes numpy say
        pickled = "Python objects" in str(error)
        raise DataError(
            f"{name} {'holds pickled objects' if pickled else f'is no numpy array: {reason_of(error)}'}",
            expected="an (N, T) array of integers: pickles are not opened, they may run anything",
            fix="rows of different lengths go into a *.jsonl; otherwise numpy.save(FILE, array.astype('int64'))",
        ) from error
    return array_rows(name, array, str(array.dtype), integer=array.dtype.kind in "iu")


def _pt(path: Path, name: str) -> RowSource:
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes torch say
        raise DataError(
            f"{name} cannot be read: {reason_of(error)}",
            expected="an (N, T) tensor of integers, or a list of rows: pickled code is not run",
            fix="torch.save(torch.tensor(rows), FILE); rows of different lengths: torch.save([[1, 2], [3]], FILE)",
        ) from error
    if isinstance(value, torch.Tensor):
        integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        return array_rows(name, value, str(value.dtype), integer=integer)
    if isinstance(value, (list, tuple)):
        rows = list(value)
        return RowSource(name, range(len(rows)), lambda index: as_fields(rows[index]))
    raise DataError(
        f"{name} holds a {type(value).__name__}",
        expected="an (N, T) tensor of integers, or a list of rows",
        fix="torch.save(data['tokens'], FILE), with the name of the entry that holds the ids",
    )


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} cannot be read: {reason_of(error)}",
        expected="a whole file that you may read",
        fix="check it with `ls -l`, and its permissions",
    )


_READERS: dict[str, Callable[[Path, str], RowSource]] = {
    ".jsonl": _jsonl, ".parquet": _parquet, ".npy": _npy, ".pt": _pt, ".txt": _text,
}  # fmt: skip
