"""What a search has done so far, on disk: a killed search loses the batch in progress and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from unmemorize.errors import DataError
from unmemorize.files.digests import bytes_digest
from unmemorize.search.found import FoundWindow

VERSION: Final = 2


class State(NamedTuple):
    """How far a search has come."""

    windows: int = 0
    """Windows that are checked, from the first on."""
    seconds: float = 0.0
    """Spent on them."""
    found: tuple[FoundWindow, ...] = ()


class SearchLog:
    """An append-only file: the settings of the search, then one line for each batch, each with its digest.

    A line that is damaged is left out, and its batch is searched again.

    Args:
        path: the file; none keeps everything in memory.
        settings: everything that decides what is found; a file of other settings is refused.

    Raises:
        DataError: the file belongs to another search, is no such file, or cannot be written.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self.state = State()
        if path is None:
            return
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            if not lines or lines == [b""]:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._append({"find": VERSION, "settings": self.settings})
            else:
                self._check(_parsed(lines[0]))
                self.state = _joined(lines[1:])
        except OSError as problem:
            raise _unusable(path, problem) from problem

    def add(self, windows: int, seconds: float, found: list[FoundWindow]) -> None:
        """Write down that the next so many windows are checked, and which of them are regurgitated."""
        before, seconds = self.state, round(seconds, 6)
        self.state = State(before.windows + windows, before.seconds + seconds, (*before.found, *found))
        rows = [window.to_row() for window in found]
        self._append({"from": before.windows, "to": self.state.windows, "seconds": seconds, "found": rows})

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        content = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace")
        content += b"\t" + bytes_digest(content).encode()
        try:
            with self.path.open("ab") as file:
                # A process that died while writing leaves a line without its end: the next one starts afresh.
                file.write((b"\n" if _is_torn(self.path) else b"") + content + b"\n")
        except OSError as problem:
            raise _unusable(self.path, problem) from problem

    def _check(self, header: dict[str, Any]) -> None:
        assert self.path is not None
        theirs = header.get("settings")
        if header.get("find") != VERSION or not isinstance(theirs, dict):
            raise DataError(
                f"{self.path} is not the state of a search",
                expected=f"a file that `unmemorize find` began, in version {VERSION}, or none",
                fix=f"choose another --out, or remove {self.path}",
            )
        ours = json.loads(json.dumps(self.settings))
        different = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if different:
            name = different[0]
            raise DataError(
                f"{self.path} belongs to a search with {name} = {theirs.get(name)!r}; this one has {ours.get(name)!r}",
                expected="the same model, texts and settings, so that the search can go on",
                fix="choose another --out, or start afresh with --fresh",
            )


def _joined(lines: list[bytes]) -> State:
    """Follow the batches from window 0 on; a torn line, or one of a second process, breaks or repeats the chain."""
    state = State()
    for batch in _batches(lines):
        if batch["from"] == state.windows:
            found = tuple(FoundWindow.from_row(row) for row in batch["found"])
            state = State(batch["to"], state.seconds + batch["seconds"], state.found + found)
    return state


def _batches(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        batch = _parsed(line)
        if batch.keys() >= {"from", "to", "seconds", "found"}:
            yield batch


def _parsed(line: bytes) -> dict[str, Any]:
    """Return what a line holds; nothing where its digest is missing or of something else."""
    content, _, digest = line.rpartition(b"\t")
    if bytes_digest(content).encode() != digest:
        return {}
    value: dict[str, Any] = json.loads(content)
    return value


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _unusable(path: Path, problem: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read or written: {problem.strerror or problem}",
        expected="a file in a folder that you may write to, on a disk with free space",
        fix="choose another place with --out, e.g. --out found.jsonl",
    )
