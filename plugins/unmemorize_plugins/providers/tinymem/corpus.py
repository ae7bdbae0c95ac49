"""Texts to make language testbeds of: Python's own documentation, files, folders, or a table on the hub."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from unmemorize import DataError
from unmemorize_plugins.providers.tinymem.places import digest_of, located
from unmemorize_plugins.providers.tinymem.wiki_markup import articles

PYTHON_DOCS = "python-docs"
WIKITEXT = "wikitext-103"
_HUB = {WIKITEXT: "hf://datasets/Salesforce/wikitext/wikitext-103-raw-v1/train-*.parquet"}
_SUFFIXES = (".txt", ".md", ".rst", ".parquet", ".gz", ".bz2")


class Corpus(ABC):
    """Documents in a fixed order, and a hash that tells them from any others."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents, none of them empty."""

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of the content, or where it is read from if that is far away."""


def open_corpus(name: str) -> Corpus:
    """Return the corpus that the setting `corpus` names.

    Raises:
        DataError: there is no such file, folder or package, or nothing that can be read in it.
    """
    if name == PYTHON_DOCS:
        return PythonDocs()
    if name in _HUB or name.startswith("hf://"):
        return HubTable(_HUB.get(name, name))
    return TextFiles(name)


class PythonDocs(Corpus):
    """The topics of Python's `help()`: about 450,000 characters of English in every Python's standard library."""

    def documents(self) -> Iterator[str]:
        """Yield one document per topic, in alphabetical order."""
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield topics[name]

    def digest(self) -> str:
        """Return a hash of the file; each release of Python has its own."""
        spec = importlib.util.find_spec("pydoc_data.topics")
        if spec is None or spec.origin is None:
            raise DataError(
                f"corpus = {PYTHON_DOCS!r}: this Python comes without the module pydoc_data",
                expected="a Python with its whole standard library",
                fix="set corpus to a text file or a folder of text files",
            )
        return digest_of([Path(spec.origin)])


class HubTable(Corpus):
    """The column `text` of parquet files on the Hugging Face hub, read by polars."""

    def __init__(self, path: str) -> None:
        self.path = path

    def documents(self) -> Iterator[str]:
        """Yield one document per row that is not blank.

        Raises:
            DataError: the hub cannot be reached, or has no such files.
        """
        yield from _texts(self.path, f"corpus {self.path!r} cannot be read from the hub")

    def digest(self) -> str:
        """Return the path: planning downloads nothing. Add @REVISION to the data set's name to pin the content."""
        return self.path


class TextFiles(Corpus):
    """A file, or the files of a folder in alphabetical order.

    Text (.txt, .md, .rst or any other single file), parquet with a column `text`, MediaWiki dumps; text and dumps also
    as .gz or .bz2.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        place = located(name, "corpus")
        self.files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if _is_text(path))
        if not self.files:
            raise DataError(
                f"corpus = {name!r}: the folder holds no text",
                expected=f"at least one file that ends in {', '.join(_SUFFIXES)}",
                fix="name another folder, or a single file of any name",
            )

    def documents(self) -> Iterator[str]:
        """Yield one document per text file, article or row."""
        for file in self.files:
            yield from (text for text in self._read(file) if text.strip())

    def digest(self) -> str:
        """Return a hash of all files."""
        return digest_of(self.files)

    def _read(self, file: Path) -> Iterator[str]:
        if file.suffix == ".parquet":
            yield from _texts(str(file), f"corpus = {self.name!r}: {file.name} cannot be read")
            return
        with _opened(file) as stream:
            is_dump = stream.read(100).lstrip().startswith(b"<mediawiki")
            stream.seek(0)
            if is_dump:
                yield from articles(stream)
            else:
                yield self._decoded(stream.read(), file)

    def _decoded(self, content: bytes, file: Path) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"corpus = {self.name!r}: {file.name} is not UTF-8 text (byte {error.start})",
                expected="text in UTF-8",
                fix=f"convert it, e.g. with `iconv -f latin1 -t utf8 {file.name}`",
            ) from error


def _opened(file: Path) -> IO[bytes]:
    if file.suffix == ".bz2":
        return bz2.open(file)
    return cast("IO[bytes]", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _is_text(path: Path) -> bool:
    return path.suffix in _SUFFIXES and path.is_file()


def _texts(source: str, failure: str) -> Iterator[str]:
    """Yield the non-blank values of the column `text` of parquet files, a slice at a time."""
    table = _table(source, failure)
    for part in table.iter_slices(100_000):
        yield from (text for text in part["text"] if text and text.strip())


def _table(source: str, failure: str) -> Any:
    try:
        return pl.read_parquet(source, columns=["text"])
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{failure}: {reason}",
            expected="parquet files with a column 'text', and for hf:// paths a connection to the hub",
            fix="check the path and the connection, or set corpus to a local file or folder",
        ) from error
