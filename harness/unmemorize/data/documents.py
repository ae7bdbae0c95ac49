"""Rows of sequences as the documents of a corpus, to be searched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from unmemorize.data.corpora import Corpus, Document
from unmemorize.data.row import Row
from unmemorize.data.row_files import row_files
from unmemorize.data.row_source import RowSource
from unmemorize.data.rows import text_of, token_rows
from unmemorize.data.tokenization import Tokenization
from unmemorize.files.places import digest_of


class RowDocuments(Corpus):
    """Rows, each a document: its text, or its token ids where it is none. Blank texts are left out.

    Args:
        rows: what `open_rows` gave.
        tokenization: what conversations are tokenized with, and ids checked against.
        place: the file that the rows come from, if they come from one.
    """

    def __init__(self, rows: RowSource, tokenization: Tokenization, place: str | None = None) -> None:
        self.rows, self.tokenization, self.place = rows, tokenization, place
        self._as_ids: dict[int, Row] | None = None

    def named(self) -> Iterator[Document]:
        """Yield one document for each row."""
        file = "" if self.place is None else Path(self.place).name
        for index, number in enumerate(self.rows.numbers):
            source = f"{file}#{number}" if file else f"{self.rows.unit} {number}"
            text = text_of(self.rows.fields(index), self.rows.at(index))
            if text is None:
                yield Document(source, "", tuple(self._ids(index)))
            elif text.strip():
                yield Document(source, text)

    def digest(self) -> str:
        """Return a hash of the file, or of all rows."""
        if self.place is not None:
            files = row_files(self.place, "texts")
            return digest_of(files) if files else self.place
        digest = hashlib.blake2b(digest_size=16)
        for index in range(len(self.rows)):
            said = repr(sorted(self.rows.fields(index).items()))
            digest.update(f"{len(said)} ".encode() + said.encode("utf-8", "replace"))
        return digest.hexdigest()

    def _ids(self, index: int) -> list[int]:
        if self._as_ids is None:  # padding is told from tokens by all rows together
            rows = self.rows
            ids = [number for number in range(len(rows)) if text_of(rows.fields(number), rows.at(number)) is None]
            self._as_ids = dict(zip(ids, token_rows(rows.select(ids), self.tokenization), strict=True))
        return self._as_ids[index].tokens
