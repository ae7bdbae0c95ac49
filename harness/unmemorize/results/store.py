"""An append-only folder of records that survives killed processes and concurrent writers."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Final

import polars as pl

from unmemorize.errors import StoreError
from unmemorize.results.json_lines import ParsedLines, read_lines
from unmemorize.results.lock import exclusive
from unmemorize.results.merge import latest
from unmemorize.results.record import Record
from unmemorize.results.schema import SCHEMA_VERSION, from_row, to_row

FILE: Final = "records.jsonl"
PER_SEQUENCE: Final = "per_sequence"


class Store:
    """The records of one results folder.

    Layout: `records.jsonl`, a record per line, only ever appended to; `per_sequence/KEY.parquet`, the values
    of single sequences. Nothing is cached here: every call reads the file as it is now.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def path(self) -> Path:
        """The file of records."""
        return self.folder / FILE

    def append(self, record: Record, per_sequence: pl.DataFrame | None = None) -> None:
        """Write one record so that it is on the disk when this returns.

        Args:
            record: what came of a cell.
            per_sequence: its values of single sequences, one row each.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        line = json.dumps(to_row(record), ensure_ascii=False, default=str).encode("utf-8", "replace")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if per_sequence is not None:
                self._write_per_sequence(record.key, per_sequence)
            _append_line(self.path, line)
        except OSError as problem:
            raise _unusable(self.folder, "written", problem) from problem

    def check_writable(self) -> None:
        """Refuse a folder into which nothing can be written: better before the first cell than after it.

        Raises:
            StoreError: it is not a folder, or cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as problem:
            raise _unusable(self.folder, "written", problem) from problem

    def read(self) -> ParsedLines:
        """Return every readable record and the number of lines that are none.

        A folder that is not there yet holds none.

        Raises:
            StoreError: it is not a folder, cannot be read, or was written by a newer release.
        """
        if not self.folder.exists():
            return read_lines(b"")
        if not self.folder.is_dir():
            raise _not_a_folder(self.folder)
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as problem:
            raise _unusable(self.folder, "read", problem) from problem
        reading = read_lines(content)
        _check_version(self.path, reading.frame)
        return reading

    def frame(self) -> pl.DataFrame:
        """Return every readable record, one row each, in the order of writing."""
        return self.read().frame

    @property
    def torn(self) -> int:
        """The number of lines that are no record."""
        return self.read().torn

    def latest(self) -> pl.DataFrame:
        """Return one row per key: its latest `done` record, otherwise its latest."""
        return latest(self.frame())

    def done_keys(self) -> set[str]:
        """Return the keys of cells that need no further run: done or skipped."""
        finished = self.latest().filter(pl.col("status").is_in(["done", "skipped"]))
        return set(finished["key"])

    def record(self, key: str) -> Record | None:
        """Return the record of a cell as `latest` has it, or None."""
        rows = latest(self.frame().filter(pl.col("key") == key)).to_dicts()
        return from_row(rows[0]) if rows else None

    def per_sequence(self, key: str) -> pl.DataFrame | None:
        """Return a cell's values of single sequences, or None where there are none."""
        path = self.folder / PER_SEQUENCE / f"{key}.parquet"
        return pl.read_parquet(path) if path.exists() else None

    def _write_per_sequence(self, key: str, values: pl.DataFrame) -> None:
        folder = self.folder / PER_SEQUENCE
        folder.mkdir(exist_ok=True)
        partial = folder / f".{key}.{os.getpid()}.{threading.get_ident()}.partial"
        try:
            with partial.open("wb") as file:
                values.write_parquet(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / f"{key}.parquet")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file, exclusive(descriptor):
        # A process that died while writing leaves a line without its end: the next one starts afresh.
        start = b"" if _ends_in_newline(descriptor) else b"\n"
        rest = memoryview(start + line + b"\n")
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(file.fileno())


def _ends_in_newline(descriptor: int) -> bool:
    if os.lseek(descriptor, 0, os.SEEK_END) == 0:
        return True
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) == b"\n"


def _check_version(path: Path, frame: pl.DataFrame) -> None:
    newest = frame["schema_version"].max()
    if isinstance(newest, int) and newest > SCHEMA_VERSION:
        raise StoreError(
            f"{path} holds records of schema version {newest}",
            expected=f"schema version {SCHEMA_VERSION} or older, which this release reads",
            fix="pip install --upgrade unmemorize",
        )


def _not_a_folder(folder: Path) -> StoreError:
    return StoreError(
        f"{folder} is not a folder",
        expected=f"a results folder, which holds {FILE}",
        fix=f"name the folder, e.g. {folder.parent}",
    )


def _unusable(folder: Path, verb: str, problem: OSError) -> StoreError:
    if isinstance(problem, (NotADirectoryError, FileExistsError)):
        return _not_a_folder(folder)
    return StoreError(
        f"the results folder {folder} cannot be {verb}: {problem.strerror or problem}",
        expected="a folder that you may read and write, on a disk with free space",
        fix=f"check `ls -ld {folder}` and `df -h {folder}`, or choose another folder",
    )
