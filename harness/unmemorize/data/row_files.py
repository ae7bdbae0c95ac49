"""Files of sequences, row by row as they stand there: JSON lines, parquet, numpy, torch, text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmemorize.errors import DataError, nearest
from unmemorize.files.places import located
from unmemorize.files.reasons import reason_of

HUB = "hf://"
FIELDS = ("tokens", "text", "prompt", "suffix", "group", "copies", "clean_tokens", "clean_text")
"""What a row may say about a sequence; anything else in it is left alone."""


@dataclass(frozen=True, slots=True)
class RowFile:
    """The rows of a file, each a mapping of `FIELDS`, made when asked for."""

    name: str
    """The setting and what it was set to, for errors."""
    numbers: Sequence[int]
    """Where each row stands in the file."""
    read: Callable[[int], Mapping[str, Any]]
    """Gives the row of an index into `numbers`."""
    unit: str = "row"
    """`line` (counted from 1) or `row` (from 0)."""

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, index: int) -> str:
        """Return file and row in words, for errors."""
        return f"{self.name}, {self.unit} {self.numbers[index]}"

    def select(self, indices: Sequence[int]) -> RowFile:
        """Return some of the rows, with the numbers that they have in the file."""
        kept = list(indices)
        return RowFile(self.name, [self.numbers[i] for i in kept], lambda index: self.read(kept[index]), self.unit)


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
    if path.is_dir() or path.suffix.lower() not in _READERS:
        kind = "folder" if path.is_dir() else f"file {path.suffix or 'without suffix'}"
        raise DataError(
            f"{setting} = {place!r} is a {kind}",
            expected=f"a file of sequences: {', '.join(nearest(path.suffix, _READERS))}",
            fix="name a file of one of these; JSON is written as JSON lines: one object on a line, in a file *.jsonl",
        )
    return [path]


def open_rows(place: str, setting: str) -> RowFile:
    """Return the rows of the file of sequences that `place` names, for the setting called `setting`.

    Args:
        place: `*.jsonl` (an object, a list of ids or a text on each line), `*.parquet` (columns named as `FIELDS`; also
            as `hf://datasets/OWNER/NAME/FILES`, stars allowed), `*.npy` and `*.pt` (an (N, T) array of ids; `*.pt` also
            a list of rows), `*.txt` (one text on each line; texts of several lines go into a *.jsonl).
        setting: what errors call it.

    Raises:
        DataError: no such file, or it cannot be read, or it holds no rows.
    """
    name = f"{setting} = {place!r}"
    files = row_files(place, setting)
    opened = _READERS[files[0].suffix.lower()](files[0], name) if files else _parquet(place, name)
    if not len(opened):
        raise DataError(
            f"{name} holds no rows",
            expected="at least one sequence",
            fix=f"write rows into it, or name another file for {setting}",
        )
    return opened


def _text_lines(path: Path, name: str) -> tuple[list[int], list[str]]:
    """Return the numbers, from 1, and the texts of the lines that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.suffix != ".jsonl" else _json_lines(path)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 text (byte {error.start})",
            expected="text in UTF-8",
            fix=f"convert it, e.g. with `iconv -f latin1 -t utf8 {path.name}`",
        ) from error
    except OSError as error:
        raise _unreadable(name, error) from error
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [number for number, _ in kept], [line for _, line in kept]


def _json_lines(path: Path) -> list[str]:
    """Only line feeds end a row: a text may hold other separators of lines unescaped."""
    return path.read_text(encoding="utf-8-sig").split("\n")


def _text(path: Path, name: str) -> RowFile:
    numbers, lines = _text_lines(path, name)
    return RowFile(name, numbers, lambda index: {"text": lines[index]}, "line")


def _jsonl(path: Path, name: str) -> RowFile:
    numbers, lines = _text_lines(path, name)

    def read(index: int) -> Mapping[str, Any]:
        try:
            value = json.loads(lines[index])
        except ValueError as error:
            raise DataError(
                f"{name}, line {numbers[index]}: not JSON: {error}",
                expected='one JSON object on each line: {"tokens": [464, 2068, ...]} or {"text": "..."}',
                fix=f"correct or remove line {numbers[index]}",
            ) from error
        return _fields(value)

    return RowFile(name, numbers, read, "line")


def _fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of a JSON value: a bare list is tokens, a bare string is text."""
    if isinstance(value, dict):
        return value
    return {"text": value} if isinstance(value, str) else {"tokens": value}


def _parquet(path: Path | str, name: str) -> RowFile:
    import polars as pl

    try:
        there = pl.scan_parquet(path).collect_schema().names()
        wanted = [field for field in FIELDS if field in there]
        frame = pl.scan_parquet(path).select(wanted).collect() if wanted else None
    except (pl.exceptions.PolarsError, OSError) as error:
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
        return {field: value for field, value in table.row(index, named=True).items() if value is not None}

    return RowFile(name, range(len(table)), read)


def _npy(path: Path, name: str) -> RowFile:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except ValueError as error:
        pickled = "pickle" in str(error).lower() or "object" in str(error).lower()
        raise DataError(
            f"{name} {'holds pickled objects' if pickled else f'is no numpy array: {error}'}",
            expected="an (N, T) array of integers: pickles are not opened, they may run anything",
            fix="rows of different lengths go into a *.jsonl; otherwise numpy.save(FILE, array.astype('int64'))",
        ) from error
    except (OSError, EOFError) as error:
        raise _unreadable(name, error) from error
    return _array(name, array, str(array.dtype), integer=array.dtype.kind in "iu")


def _pt(path: Path, name: str) -> RowFile:
    import pickle
    import zipfile

    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{name} cannot be read: {reason_of(error)}",
            expected="an (N, T) tensor of integers, or a list of rows: pickled code is not run",
            fix="torch.save(torch.tensor(rows), FILE); rows of different lengths: torch.save([[1, 2], [3]], FILE)",
        ) from error
    except OSError as error:
        raise _unreadable(name, error) from error
    if isinstance(value, torch.Tensor):
        integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        return _array(name, value, str(value.dtype), integer=integer)
    if isinstance(value, (list, tuple)):
        rows = list(value)
        return RowFile(name, range(len(rows)), lambda index: {"tokens": _listed(rows[index])})
    raise DataError(
        f"{name} holds a {type(value).__name__}",
        expected="an (N, T) tensor of integers, or a list of rows",
        fix="torch.save(data['tokens'], FILE), with the name of the entry that holds the ids",
    )


def _listed(row: Any) -> Any:
    return row.tolist() if hasattr(row, "tolist") else row


def _array(name: str, array: Any, dtype: str, *, integer: bool) -> RowFile:
    if not integer or array.ndim != 2:
        problem = f"of {dtype}" if not integer else f"of shape {tuple(array.shape)}"
        raise DataError(
            f"{name} holds an array {problem}",
            expected="an (N, T) array of integers: N sequences of T token ids",
            fix="save the token ids themselves; one sequence alone as array[None]",
        )
    return RowFile(name, range(len(array)), lambda index: {"tokens": array[index].tolist()})


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} cannot be read: {reason_of(error)}",
        expected="a whole file that you may read",
        fix="check it with `ls -l`, and its permissions",
    )


_READERS: dict[str, Callable[[Path, str], RowFile]] = {
    ".jsonl": _jsonl, ".parquet": _parquet, ".npy": _npy, ".pt": _pt, ".txt": _text,
}  # fmt: skip


def every(rows: RowFile) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the index and the fields of each row."""
    return ((index, rows.read(index)) for index in range(len(rows)))
