"""The one reader: texts and token ids, whatever they come in, become rows of fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from unmemorize.data.row_files import HUB, open_file
from unmemorize.data.row_source import FIELDS, RowSource, array_rows, as_fields, is_missing, listed
from unmemorize.errors import DataError, nearest

_WORDS = 4
"""A name of more words that is no path is taken for a text."""

KINDS: Final = (
    "the path of a file of sequences (jsonl, parquet, npy, pt, txt)",
    "a list, tuple, set or generator of texts, of lists of token ids, or of dicts",
    "a dict of columns, as a tokenizer returns it",
    "a pandas or polars Series or DataFrame, a `datasets.Dataset`, a pyarrow Table",
    "a numpy array or torch tensor of token ids",
    "`Sequences`, or what `find` returned",
)
"""What sequences may come in."""


def open_rows(source: object, setting: str) -> RowSource:
    """Return the rows of any of `KINDS`, each a mapping of `FIELDS`, for the setting called `setting`.

    Rows are read when they are asked for; those of a generator are kept, and those of a set, which has no order, are
    sorted.

    Raises:
        DataError: something else, a file that cannot be read, or no rows at all.
    """
    if isinstance(source, RowSource):
        return source
    check_is_place(source, setting)
    opened = open_file(str(source), setting) if isinstance(source, (str, Path)) else _of_object(source, setting)
    if not len(opened):
        raise DataError(
            f"{opened.name} holds no rows",
            expected="at least one sequence",
            fix=f"write rows into it, or name another source for {setting}",
        )
    return opened


def check_is_place(source: object, setting: str) -> None:
    """Refuse a text that stands where a place is expected.

    Raises:
        DataError: it has the look of a text, and there is no such file.
    """
    if isinstance(source, str) and len(source.split()) > _WORDS and not source.startswith(HUB) and not _exists(source):
        raise DataError(
            f"{setting} is a text, {source[:40]!r}..., and not a place",
            expected="the path of a file or folder; or texts in a list",
            fix=f"put the text into a list, {setting}=[text], or into a file: one text on each line of a *.txt",
        )


def _exists(place: str) -> bool:
    try:
        return Path(place).expanduser().exists()
    except (OSError, RuntimeError):  # a name that the system refuses
        return False


def _of_object(source: Any, setting: str) -> RowSource:
    for is_one, opener in _OPENERS:
        if is_one(source):
            return opener(source, setting)
    raise DataError(
        f"{setting} is {_named(source)}",
        expected="one of: " + "; ".join(KINDS),
        fix=f"give {setting} as one of these, e.g. a list of texts: {setting}=['...', '...']",
    )


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda source: not isinstance(source, type) and all(hasattr(source, name) for name in names)


def _is_table(source: Any) -> bool:
    columns = getattr(source, "column_names", None) or getattr(source, "columns", None)
    return columns is not None and all(hasattr(source, name) for name in ("__getitem__", "__len__"))


def _is_array(source: Any) -> bool:
    return hasattr(source, "dtype") and hasattr(source, "ndim") and hasattr(source, "shape")


def _is_column(source: Any) -> bool:
    return any(callable(getattr(source, name, None)) for name in ("to_pylist", "to_list"))


def _sequences(source: Any, setting: str) -> RowSource:
    def read(index: int) -> Mapping[str, Any]:
        length, prompt = int(source.lengths[index]), int(source.suffix_starts[index])
        row: dict[str, Any] = {
            "tokens": source.tokens[index, :length].tolist(),
            "copies": int(source.copies[index]),
        }
        if 0 < prompt < length:
            row["prompt"] = prompt
        if source.clean_tokens is not None:
            row["clean_tokens"] = source.clean_tokens[index, : int(source.clean_lengths[index])].tolist()
        return row

    return RowSource(setting, range(len(source)), read, kind="Sequences")


def _found(source: Any, setting: str) -> RowSource:
    rows = [window.to_row() for window in source.windows]
    return RowSource(setting, range(len(rows)), lambda index: rows[index], kind="what `find` returned")


def _columns(source: Mapping[str, Any], setting: str) -> RowSource:
    wanted = {name: listed(column) for name, column in source.items() if name in FIELDS}
    kind, rectangular = _named(source), any(getattr(column, "ndim", 0) == 2 for column in source.values())
    if not wanted:
        tables = [str(name) for name, column in source.items() if _is_table(column)]
        raise _several(setting, kind, tables) if tables else _no_column(setting, kind, map(str, source))
    column = next(iter(wanted.values()))
    if isinstance(column, str) or not isinstance(column, (list, tuple)) or _is_flat(wanted):
        return RowSource(setting, range(1), lambda _: as_fields(wanted), kind=kind)
    sizes = {name: len(values) for name, values in wanted.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"{setting} is {kind} whose columns differ in length: {', '.join(f'{n} {s}' for n, s in sizes.items())}",
            expected="one value in each column for each row",
            fix="give a list with one dict for each row, or columns of equal length",
        )

    def read(index: int) -> Mapping[str, Any]:
        row = {name: listed(values[index]) for name, values in wanted.items()}
        return {name: value for name, value in row.items() if not is_missing(value)}

    return RowSource(setting, range(len(column)), read, kind=kind, rectangular=rectangular)


def _is_flat(columns: Mapping[str, Any]) -> bool:
    """Say whether these columns are one row: a tokenizer returns it so for one text."""
    ids = columns.get("input_ids", columns.get("tokens"))
    return isinstance(ids, list) and bool(ids) and all(type(one) is int for one in ids)


def _table(source: Any, setting: str) -> RowSource:
    there = [str(name) for name in getattr(source, "column_names", None) or source.columns]
    wanted = [name for name in there if name in FIELDS]
    if not wanted:
        raise _no_column(setting, _named(source), there)
    opened = _columns({name: source[name][:] for name in wanted}, setting)
    return RowSource(setting, opened.numbers, opened.read, kind=_named(source))


def _no_column(setting: str, kind: str, there: Iterable[str]) -> DataError:
    return DataError(
        f"{setting} is {kind} without any of the columns that say what a sequence is",
        expected=f"a column `tokens` (lists of ids) or `text`; it has {', '.join(nearest('tokens', there)) or 'none'}",
        fix="rename the column that holds the ids to tokens, or the one that holds the texts to text",
    )


def _several(setting: str, kind: str, tables: list[str]) -> DataError:
    return DataError(
        f"{setting} is {kind} of several tables: {', '.join(tables)}",
        expected="one table",
        fix=f"choose one of them: {setting}=data[{tables[0]!r}]",
    )


def _array(source: Any, setting: str) -> RowSource:
    kind = _named(source)
    if getattr(source.dtype, "kind", "i") in "OUST":
        return _iterable(source.tolist(), setting, kind)
    integer = "int" in str(source.dtype)
    return array_rows(setting, source, str(source.dtype), integer=integer, kind=kind)


def _column(source: Any, setting: str) -> RowSource:
    return _iterable(listed(source), setting, _named(source))


def _iterable(source: Iterable[Any], setting: str, kind: str = "") -> RowSource:
    kind = kind or _named(source)
    values = list(source)
    if isinstance(source, (set, frozenset)):
        values.sort(key=lambda value: (isinstance(value, str), value))
    if any(isinstance(value, (int, float)) and not is_missing(value) for value in values[:1]):
        raise DataError(
            f"{setting} is {kind} of numbers: {values[0]!r}, ...",
            expected="a list of rows, each a list of token ids, a text or a dict",
            fix=f"write one sequence alone as a list of one row: {setting}=[ids]",
        )
    return RowSource(setting, range(len(values)), lambda index: as_fields(values[index]), kind=kind)


def _named(source: object) -> str:
    kind = type(source)
    home = kind.__module__.partition(".")[0]
    name = kind.__name__ if home == "builtins" else f"{home}.{kind.__name__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


_OPENERS: Final[tuple[tuple[Callable[[Any], bool], Callable[[Any, str], RowSource]], ...]] = (
    (_has("suffix_starts", "lengths", "clean_tokens"), _sequences),
    (_has("windows", "kept"), _found),
    (lambda source: isinstance(source, Mapping), _columns),
    (_has("collect", "collect_schema"), lambda source, setting: _table(source.collect(), setting)),
    (_is_table, _table),
    (_is_column, _column),
    (_is_array, _array),
    (lambda source: isinstance(source, Iterable) and not isinstance(source, (str, bytes, bytearray)), _iterable),
)
"""What tells each kind, in this order, and what reads it; no library is imported to know its objects."""
