"""Texts to read: Python's own documentation, licences, files, folders, packages, or a table on the hub."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from xml.etree import ElementTree

import polars as pl

from unmemorize.data.row_files import open_file, row_files
from unmemorize.data.wiki_markup import articles
from unmemorize.errors import DataError
from unmemorize.files.decoding import decoded
from unmemorize.files.error_reasons import reason_of
from unmemorize.files.places import digest_of, located

PYTHON_DOCS = "python-docs"
LICENCES = "licences"
_HUB = {"wikitext-103": "hf://datasets/Salesforce/wikitext/wikitext-103-raw-v1/train-*.parquet"}
TEXT_FILES = ("*.txt", "*.md", "*.rst", "*.jsonl", "*.parquet", "*.gz", "*.bz2")
"""The files of a folder that count as text where nothing else is said."""
_TABLES = (".json", ".csv", ".tsv")
"""Files of records: read as one running text, they would be another text than a model has seen."""
_LARGEST = 2**31
"""Bytes of a text, at most; a small file may unpack into more than there is memory for."""
_LICENCE_FILES = ("LICEN[CS]E*", "COPYING*", "NOTICE*")


class Document(NamedTuple):
    """One text and where it comes from."""

    source: str
    """The file (relative to the folder that was named), topic, article or row."""
    text: str
    tokens: tuple[int, ...] | None = None
    """Its token ids, where it came as these, and not as text."""


class Corpus(ABC):
    """Documents in a fixed order, and a hash that tells them from any others."""

    @abstractmethod
    def named(self) -> Iterator[Document]:
        """Yield the documents, none of them blank."""

    def documents(self) -> Iterator[str]:
        """Yield the texts alone."""
        return (document.text for document in self.named())

    @abstractmethod
    def digest(self) -> str:
        """Return a hash of the content, or where it is read from if that is far away."""


def open_corpus(
    name: str, *, setting: str = "corpus", include: Sequence[str] | None = None, lenient: bool = False
) -> Corpus:
    """Return the corpus that `name` says, for the setting called `setting`.

    Args:
        name: `python-docs` (the topics of Python's `help()`), `licences` (of the installed packages), `wikitext-103`,
            an `hf://` path of parquet files, a file or folder, or one in a package: `package:IMPORT_NAME/path`.
        setting: what errors call the place where `name` was given.
        include: patterns of the files to read of a folder, as `*.py` or `docs/*.txt`; `TEXT_FILES` by default.
        lenient: replace bytes that are not UTF-8 (by U+FFFD) instead of refusing the file.

    Raises:
        DataError: there is no such file, folder or package, or nothing that can be read in it.
    """
    if name == PYTHON_DOCS:
        return PythonDocs(setting)
    if name == LICENCES:
        return Licences(setting)
    if name in _HUB or name.startswith("hf://"):
        return HubTable(_HUB.get(name, name), setting)
    return TextFiles(name, setting, include, lenient=lenient)


class PythonDocs(Corpus):
    """The topics of Python's `help()`: about 450,000 characters of English in every Python's standard library."""

    def __init__(self, setting: str = "corpus") -> None:
        self.setting = setting

    def named(self) -> Iterator[Document]:
        """Yield one document per topic, in alphabetical order."""
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield Document(name, topics[name])

    def digest(self) -> str:
        """Return a hash of the file; each release of Python has its own."""
        spec = importlib.util.find_spec("pydoc_data.topics")
        if spec is None or spec.origin is None:
            raise DataError(
                f"{self.setting} = {PYTHON_DOCS!r}: this Python comes without the module pydoc_data",
                expected="a Python with its whole standard library",
                fix=f"set {self.setting} to a text file or a folder of text files",
            )
        return digest_of([Path(spec.origin)])


class Licences(Corpus):
    """The licence files of the installed packages: texts that every machine has, and that quote each other."""

    def __init__(self, setting: str = "corpus") -> None:
        self.setting = setting
        self.files = sorted(set(_licence_files()))
        if not self.files:
            raise DataError(
                f"{setting} = {LICENCES!r}: no installed package brings a licence file",
                expected="packages installed with their *.dist-info folders",
                fix=f"set {setting} to a text file or a folder of text files",
            )

    def named(self) -> Iterator[Document]:
        """Yield one document per file, in the order of the packages' names."""
        for name, file in self.files:
            text = file.read_text(encoding="utf-8", errors="replace")
            if text.strip():
                yield Document(name, text)

    def digest(self) -> str:
        """Return a hash of all files: another set of packages is another corpus."""
        return digest_of([file for _, file in self.files])


def _licence_files() -> Iterator[tuple[str, Path]]:
    from importlib.metadata import distributions

    for distribution in distributions():
        for file in distribution.files or ():
            in_metadata = file.parts[0].endswith(".dist-info")
            if in_metadata and any(fnmatchcase(file.name, pattern) for pattern in _LICENCE_FILES):
                place = Path(str(distribution.locate_file(file)))
                if place.is_file():
                    yield file.as_posix(), place


class HubTable(Corpus):
    """The column `text` of parquet files on the Hugging Face hub, read by polars."""

    def __init__(self, path: str, setting: str = "corpus") -> None:
        self.path, self.setting = path, setting

    def named(self) -> Iterator[Document]:
        """Yield one document per row that is not blank.

        Raises:
            DataError: the hub cannot be reached, or has no such files.
        """
        yield from _rows(self.path, self.path, f"{self.setting} {self.path!r} cannot be read from the hub")

    def digest(self) -> str:
        """Return the path: planning downloads nothing. Add @REVISION to the data set's name to pin the content."""
        return self.path


class TextFiles(Corpus):
    """A file, or the files of a folder in alphabetical order.

    Text (.txt, .md, .rst, any other single file but tables and JSON, or what `include` names), JSON lines and parquet
    with a column `text`, MediaWiki dumps; text and dumps also as .gz or .bz2.
    """

    def __init__(
        self, name: str, setting: str = "corpus", include: Sequence[str] | None = None, *, lenient: bool = False
    ) -> None:
        self.name, self.setting, self.errors = name, setting, "replace" if lenient else "strict"
        self.place = located(name, setting)
        if self.place.is_file() and self.place.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(_TABLES):
            row_files(name, setting)  # refuses it
        patterns = tuple(include or TEXT_FILES)
        self.files = [self.place] if self.place.is_file() else _matching(self.place, patterns)
        if not self.files:
            raise DataError(
                f"{setting} = {name!r}: the folder holds no text",
                expected=f"at least one file that matches {', '.join(patterns)}",
                fix="name another folder, or a single file of any name"
                + ("" if include is None else ", or other patterns"),
            )

    def named(self) -> Iterator[Document]:
        """Yield one document per text file, article or row."""
        for file in self.files:
            name = file.name if file == self.place else file.relative_to(self.place).as_posix()
            yield from (document for document in self._read(file, name) if document.text.strip())

    def digest(self) -> str:
        """Return a hash of all files."""
        return digest_of(self.files)

    def _read(self, file: Path, name: str) -> Iterator[Document]:
        if file.suffix == ".parquet":
            yield from _rows(str(file), name, f"{self.setting} = {self.name!r}: {file.name} cannot be read")
            return
        if file.suffix == ".jsonl" and (rows := _texts_of(file, f"{self.setting} = {self.name!r}: {file.name}")):
            yield from (Document(f"{name}#{number}", text) for number, text in rows)
            return
        try:
            yield from self._texts(file, name)
        except (OSError, EOFError, zlib.error, ElementTree.ParseError) as error:
            raise DataError(
                f"{self.setting} = {self.name!r}: {file.name} cannot be read: {reason_of(error)}",
                expected="whole files that you may read",
                fix=f"check {file.name}, or remove it",
            ) from error

    def _texts(self, file: Path, name: str) -> Iterator[Document]:
        with _opened(file) as stream:
            is_dump = stream.read(100).lstrip().startswith(b"<mediawiki")
            stream.seek(0)
            if is_dump:
                for number, article in enumerate(articles(stream)):
                    yield Document(f"{name}#{number}", article)
            else:
                where = f"{self.setting} = {self.name!r}: {file.name}"
                yield Document(name, decoded(_whole(stream, where), where, file.name, self.errors))


def _texts_of(file: Path, name: str) -> list[tuple[int, str]]:
    """Return numbers and texts of the rows of a file of sequences; none where it is JSON of another kind.

    Raises:
        DataError: rows of sequences that are no texts.
    """
    try:
        rows = open_file(str(file), name)
        said = [(rows.at(index), rows.numbers[index], rows.fields(index)) for index in range(len(rows))]
    except DataError:
        return []
    texts = [(number, text) for _, number, fields in said if isinstance(text := fields.get("text"), str)]
    for where, _, fields in said:
        if "text" not in fields and any(name in fields for name in ("tokens", "input_ids", "messages", "suffix")):
            raise DataError(
                f"{where}: the row is no text, and files in a folder are read as texts",
                expected='rows {"text": "..."}',
                fix=f"name the file itself, {file.name}, in place of its folder",
            )
    return texts


def _whole(stream: IO[bytes], where: str) -> bytes:
    content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise DataError(
            f"{where} holds more than {_LARGEST >> 20:,} MiB, unpacked",
            expected="texts that fit into memory",
            fix="divide it into several files",
        )
    return content


def _opened(file: Path) -> IO[bytes]:
    if file.suffix == ".bz2":
        return bz2.open(file)
    return cast("IO[bytes]", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files below `folder` whose name, or path below it, matches one of the patterns."""

    def wanted(path: Path) -> bool:
        names = (path.name, path.relative_to(folder).as_posix())
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return sorted(path for path in folder.rglob("*") if wanted(path) and path.is_file())


def _rows(source: str, name: str, failure: str) -> Iterator[Document]:
    """Yield the non-blank values of the column `text` of parquet files, a slice at a time."""
    number = 0
    for part in _table(source, failure).iter_slices(100_000):
        for text in part["text"]:
            if text and text.strip():
                yield Document(f"{name}#{number}", text)
            number += 1


def _table(source: str, failure: str) -> Any:
    try:
        return pl.read_parquet(source, columns=["text"])
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = reason_of(error)
        raise DataError(
            f"{failure}: {reason}",
            expected="parquet files with a column 'text', and for hf:// paths a connection to the hub",
            fix="check the path and the connection, or name a local file or folder",
        ) from error
