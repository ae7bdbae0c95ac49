"""The file that one process appends its records to: no other writes there, so that nothing needs to be locked."""

from __future__ import annotations

import io
import os
import secrets
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from unmemorize.errors import RecordError, StoreError
from unmemorize.files.atomic import write_file
from unmemorize.files.digests import bytes_digest
from unmemorize.results.lines import encode
from unmemorize.results.record import Record

if TYPE_CHECKING:
    import polars as pl

SHARDS: Final = "records"
LEGACY: Final = "records.jsonl"
"""The one file of 0.1.0; also of results that are published."""
PER_SEQUENCE: Final = "per_sequence"


class Shard:
    """A file of records in a results folder, made at the first record; threads may share it, processes may not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self.path = folder / SHARDS / f"{started}-{secrets.token_hex(4)}.jsonl"
        self._writing = threading.Lock()

    def append(self, record: Record, per_sequence: pl.DataFrame | None = None) -> None:
        """Write one record so that it is on the disk when this returns.

        Args:
            record: what came of a cell.
            per_sequence: its values of single sequences, one row each.

        Raises:
            RecordError: it is impossible, or could not be read back; nothing is written.
            StoreError: the folder cannot be made or written.
        """
        try:
            content = _parquet(per_sequence)
            digest = None if content is None else bytes_digest(content)
            line = encode(record.model_copy(update={"per_sequence_digest": digest}))
        except Exception as problem:  # whatever a plugin has left in it, down to texts that raise
            raise RecordError(record.method, _said(problem)) from problem
        try:
            if content is not None:
                write_file(per_sequence_path(self.folder, record.key), content)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing:
                _append(self.path, line)
        except OSError as problem:
            raise unusable(self.folder, "written", problem) from problem


def per_sequence_path(folder: Path, key: str) -> Path:
    """Return where the values of a cell's single sequences lie."""
    return folder / PER_SEQUENCE / f"{key}.parquet"


def unusable(folder: Path, verb: str, problem: OSError) -> StoreError:
    """Return the error of a results folder that cannot be read or written."""
    if isinstance(problem, (NotADirectoryError, FileExistsError)) and not folder.is_dir():
        return StoreError(
            f"{folder} is not a folder",
            expected=f"a results folder, which holds {SHARDS}/*.jsonl or {LEGACY}",
            fix=f"name the folder, e.g. {folder.parent}",
        )
    place = problem.filename or folder
    inside = f"{place}: " if str(place) != str(folder) else ""
    return StoreError(
        f"the results folder {folder} cannot be {verb}: {inside}{problem.strerror or problem}",
        expected="a folder that you may read and write, on a disk with free space",
        fix=f"check `ls -ld {place}` and `df -h {folder}`, or choose another folder",
    )


def _said(problem: Exception) -> str:
    try:
        return str(problem).strip() or type(problem).__name__
    except Exception:
        return type(problem).__name__


def _parquet(values: pl.DataFrame | None) -> bytes | None:
    if values is None:
        return None
    buffer = io.BytesIO()
    values.write_parquet(buffer)
    return buffer.getvalue()


def _append(path: Path, line: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):  # a full disk holds no half of a line
                os.ftruncate(file.fileno(), start)
            raise
