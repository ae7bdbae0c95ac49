"""A folder of records that survives killed processes, writers at the same time, and damage to its files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from unmemorize.errors import StoreError
from unmemorize.files.atomic import check_place, read_file, write_file
from unmemorize.files.digests import bytes_digest
from unmemorize.results.lines import Lines, SetAside, encode, read_lines
from unmemorize.results.merge import latest
from unmemorize.results.record import Record
from unmemorize.results.schema import SCHEMA_VERSION, empty, from_row
from unmemorize.results.shard import LEGACY, PER_SEQUENCE, SHARDS, Shard, per_sequence_path, unusable

FINISHED: Final = ("done", "skipped")
"""Statuses of cells that need no further run."""


class Contents(NamedTuple):
    """What a results folder holds."""

    frame: pl.DataFrame
    """Every record that is believed, one row each, in the order in which the cells finished."""
    set_aside: tuple[SetAside, ...]
    """Damaged and impossible records, but those whose cell has been run again."""

    def latest(self) -> pl.DataFrame:
        """Return one row per key: its latest `done` record, otherwise its latest."""
        return latest(self.frame)

    def done_keys(self) -> set[str]:
        """Return the keys of cells that need no further run: done or skipped."""
        return set(self.latest().filter(pl.col("status").is_in(FINISHED))["key"])

    def record(self, key: str) -> Record | None:
        """Return the record of a cell as `latest` has it, or None."""
        rows = latest(self.frame.filter(pl.col("key") == key)).to_dicts()
        return from_row(rows[0]) if rows else None


class Store:
    """The records of one results folder.

    Layout: `records/SHARD.jsonl`, one file for each process that wrote, a record per line, only ever appended to;
    `records.jsonl`, the one file of 0.1.0 and of published results; `per_sequence/KEY.parquet`, the values of single
    sequences. Nothing is cached here: every call reads the files as they are now.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def shard(self) -> Shard:
        """Return a new file of records for this process to append to."""
        return Shard(self.folder)

    def exists(self) -> bool:
        """Whether there is any file of records."""
        return next(self._files(), None) is not None

    def check_writable(self) -> None:
        """Refuse a folder into which nothing can be written: better before the first cell than after it.

        Raises:
            StoreError: it is not a folder, or cannot be written.
        """
        try:
            for folder in (self.folder, self.folder / SHARDS, self.folder / PER_SEQUENCE):
                folder.mkdir(parents=True, exist_ok=True)
                check_place(folder)
        except OSError as problem:
            raise unusable(self.folder, "written", problem) from problem

    def read(self) -> Contents:
        """Return every record that is believed, and what is set aside.

        A folder that is not there yet holds none.

        Raises:
            StoreError: it is not a folder, cannot be read, or was written by a newer release.
        """
        files = [self._lines(path) for path in self._files()]
        if not files:
            return Contents(empty(), ())
        frame = pl.concat([lines.frame for lines in files])
        if len(files) > 1:
            frame = frame.sort("finished_at", maintain_order=True)
        return Contents(frame, tuple(_not_run_again(files)))

    def frame(self) -> pl.DataFrame:
        """Return every record that is believed, one row each, in the order in which the cells finished."""
        return self.read().frame

    def latest(self) -> pl.DataFrame:
        """Return the `latest` of everything, read now; so do the next two."""
        return self.read().latest()

    def done_keys(self) -> set[str]:
        """Return the keys of cells that need no further run."""
        return self.read().done_keys()

    def record(self, key: str) -> Record | None:
        """Return the latest record of a cell, or None."""
        return self.read().record(key)

    def mentions(self, key: str) -> bool:
        """Whether any file names a cell: a quick look before `record`, which believes nothing unchecked."""
        try:
            return any(key.encode() in path.read_bytes() for path in self._files())
        except OSError:  # it says no more than that, and `record` says why
            return True

    def per_sequence(self, key: str) -> pl.DataFrame | None:
        """Return a cell's values of single sequences, or None where there are none.

        Raises:
            StoreError: they are missing, damaged, or of another record than those of this cell.
        """
        return self._per_sequence(key, self.frame().filter(key=key)["per_sequence_digest"].to_list())

    def bad_per_sequence(self) -> list[str]:
        """Return in words whose values of single sequences are missing, damaged, or of another record."""
        frame = self.frame().filter(status="done").group_by("key", maintain_order=True).agg("per_sequence_digest")
        found = []
        for key, digests in frame.iter_rows():
            try:
                self._per_sequence(key, digests)
            except StoreError as error:
                found.append(error.what)
        return found

    def upgrade(self) -> None:
        """Rewrite records of 0.1.0 with digests; what is damaged stays as it is. A folder that is read-only, too.

        Raises:
            StoreError: the folder cannot be read, or was written by a newer release.
        """
        path = self.folder / LEGACY
        if not path.exists() or (self._lines(path).frame["schema_version"] == SCHEMA_VERSION).all():
            return
        with suppress(OSError):
            lines = read_file(path).split(b"\n")
            write_file(path, b"\n".join(self._upgraded(line) for line in lines))

    def _upgraded(self, line: bytes) -> bytes:
        rows = read_lines(line).frame.filter(pl.col("schema_version") < SCHEMA_VERSION).to_dicts()
        if not rows:
            return line
        record = from_row(rows[0])
        place = per_sequence_path(self.folder, record.key)
        with suppress(OSError, pl.exceptions.PolarsError):
            content = read_file(place)
            pl.read_parquet(io.BytesIO(content))
            record = record.model_copy(update={"per_sequence_digest": bytes_digest(content)})
        return encode(record).rstrip()

    def _files(self) -> Iterator[Path]:
        """Yield the files of records, the oldest first."""
        if self.folder.exists() and not self.folder.is_dir():
            raise unusable(self.folder, "read", NotADirectoryError())
        legacy = self.folder / LEGACY
        if legacy.exists():
            yield legacy
        yield from sorted((self.folder / SHARDS).glob("*.jsonl"))

    def _lines(self, path: Path) -> Lines:
        try:
            content = read_file(path)
        except OSError as problem:
            raise unusable(self.folder, "read", problem) from problem
        lines = read_lines(content, path.relative_to(self.folder).as_posix())
        if lines.newest > SCHEMA_VERSION:
            raise StoreError(
                f"{path} holds records of schema version {lines.newest}",
                expected=f"schema version {SCHEMA_VERSION} or older, which this release reads",
                fix="pip install --upgrade unmemorize",
            )
        return lines

    def _per_sequence(self, key: str, digests: Iterable[str | None]) -> pl.DataFrame | None:
        known = {digest for digest in digests if digest is not None}
        place = per_sequence_path(self.folder, key)
        try:
            content = read_file(place)
            if known and bytes_digest(content) not in known:
                raise _bad_values(place, "are not those of its record")
            return pl.read_parquet(io.BytesIO(content))
        except FileNotFoundError:
            if known:
                raise _bad_values(place, "are missing") from None
            return None
        except (OSError, pl.exceptions.PolarsError) as problem:
            raise _bad_values(place, "are damaged") from problem


def _not_run_again(files: list[Lines]) -> Iterator[SetAside]:
    """Leave out lines of cells that a later run has finished: only that is why a later file holds them."""
    if not any(lines.set_aside for lines in files):
        return
    finished = [set(lines.frame.filter(pl.col("status").is_in(FINISHED))["key"]) for lines in files]
    for number, lines in enumerate(files):
        later = set().union(*finished[number + 1 :])
        yield from (one for one in lines.set_aside if one.key not in later)


def _bad_values(place: Path, what: str) -> StoreError:
    return StoreError(
        f"the values of single sequences in {place} {what}",
        expected="the file that was written together with the cell's record",
        fix="restore the file, or run the suite in a new folder: unmemorize run SUITE --results FOLDER",
    )
