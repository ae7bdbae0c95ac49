"""Rows of files as token ids: tokenized where they are text, and checked, each error with its file and row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unmemorize.data.row_files import RowFile, every
from unmemorize.errors import DataError


class Bounds(NamedTuple):
    """What a model says about sequences."""

    vocabulary: int
    """Ids from 0 to this, exclusive."""
    context: int | None
    """The longest sequence that it can read, if it has a bound."""
    pad_id: int
    """What fills rows on the right: never attended to, so any id will do where the tokenizer has none for it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence."""

    tokens: list[int]
    prompt: int | None = None
    """How many of the tokens are its prompt, where the file says so."""
    group: str | None = None
    """The family that it belongs to, where the file says so: a family is never split over two sets."""
    copies: int = 1
    """How often it stands in the training data, where the file says so."""
    clean: list[int] | None = None
    """What is to be said in its place, where the file says so."""
    where: str = ""
    """File and row, for errors."""


@dataclass(frozen=True, slots=True)
class Tokenization:
    """What rows are read with. Without a tokenizer they must be token ids."""

    tokenizer: Any = None
    vocabulary: int | None = None
    """Ids from 0 to this, exclusive, are ids; not checked if it is none."""

    def ids(self, text: str, where: str) -> list[int]:
        """Return a text's token ids; no special tokens are added.

        Raises:
            DataError: there is no tokenizer.
        """
        if self.tokenizer is None:
            raise DataError(
                f"{where}: the row is text, and the model came without a tokenizer",
                expected='rows of token ids, {"tokens": [464, 2068, ...]}, or a tokenizer beside the model',
                fix="tokenizer.save_pretrained(MODEL_FOLDER), or write the rows as token ids",
            )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def token_rows(file: RowFile, tokenization: Tokenization) -> list[Row]:
    """Return the rows of a file as token ids.

    A row says `tokens`, or `text`, or its `prompt` and `suffix` (both texts or both ids; tokenized one by one). Where
    it says `tokens` (or `text`), a number as `prompt` is the length of its prompt. `clean_tokens` or `clean_text` is
    what is to be said in its place; either all rows have it or none.

    Raises:
        DataError: a row that says none of these, or whose ids are not ids of this vocabulary; named by file and row.
    """
    rows = [_row(fields, tokenization, file.at(index)) for index, fields in every(file)]
    with_clean = [row.clean is not None for row in rows]
    if any(with_clean) and not all(with_clean):
        where = rows[with_clean.index(False)].where
        raise DataError(
            f"{where}: the row has no clean counterpart, and others have one",
            expected="`clean_tokens` or `clean_text` in all rows, or in none",
            fix="add what the model shall say in this row's place, or remove the field everywhere",
        )
    return rows


def _row(fields: Mapping[str, Any], tokenization: Tokenization, where: str) -> Row:
    prompt = fields.get("prompt")
    if "tokens" in fields or "text" in fields:
        part = "tokens" if "tokens" in fields else "text"
        tokens = _part(fields[part], part, tokenization, where)
        length = prompt if isinstance(prompt, int) else None
    elif "suffix" in fields and prompt is not None:
        shown = _part(prompt, "prompt", tokenization, where)
        tokens, length = shown + _part(fields["suffix"], "suffix", tokenization, where), len(shown)
    else:
        raise _nothing_said(fields, where)
    if length is not None and not 0 < length < len(tokens):
        raise DataError(
            f"{where}: prompt = {length}, and the row has {len(tokens)} tokens",
            expected="a prompt of at least one token, and at least one token after it",
            fix="correct the row's prompt, or remove the field",
        )
    return Row(tokens, length, _group(fields), _copies(fields, where), _clean(fields, tokenization, where), where)


def _part(value: Any, part: str, tokenization: Tokenization, where: str) -> list[int]:
    if isinstance(value, str):
        if not value.strip():
            raise _empty(where, part)
        return _checked(tokenization.ids(value, where), part, tokenization, where)
    if part in ("text", "clean_text") or not isinstance(value, Sequence):
        wanted = "a text" if part in ("text", "clean_text") else "a list of token ids"
        raise DataError(
            f"{where}: {part} is {_shown(value)}",
            expected=wanted + ("" if part != "prompt" else ", a text, or beside `tokens` a number"),
            fix=f"correct {part} in this row",
        )
    return _checked(value, part, tokenization, where)


def _checked(ids: Sequence[Any], part: str, tokenization: Tokenization, where: str) -> list[int]:
    if not len(ids):
        raise _empty(where, part)
    for position, value in enumerate(ids):
        if not _is_id(value):
            raise DataError(
                f"{where}: {part}[{position}] is {_shown(value)}",
                expected="integers from 0 on: token ids",
                fix="write the ids themselves; texts go into the field `text`",
            )
        if tokenization.vocabulary is not None and value >= tokenization.vocabulary:
            raise DataError(
                f"{where}: {part}[{position}] is {value}, outside the model's vocabulary",
                expected=f"ids from 0 to {tokenization.vocabulary - 1}",
                fix="tokenize with the model's own tokenizer",
            )
    return list(ids)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _group(fields: Mapping[str, Any]) -> str | None:
    group = fields.get("group")
    return None if group is None else str(group)


def _copies(fields: Mapping[str, Any], where: str) -> int:
    copies = fields.get("copies", 1)
    if not _is_id(copies):
        raise DataError(
            f"{where}: copies is {_shown(copies)}",
            expected="how often the sequence stands in the training data: 0, 1, 2, ...",
            fix="correct copies in this row, or remove it",
        )
    return int(copies)


def _clean(fields: Mapping[str, Any], tokenization: Tokenization, where: str) -> list[int] | None:
    for part in ("clean_tokens", "clean_text"):
        if part in fields:
            return _part(fields[part], part, tokenization, where)
    return None


def _empty(where: str, part: str) -> DataError:
    return DataError(
        f"{where}: {part} is empty",
        expected="at least one token",
        fix="remove the row, or write what it shall say",
    )


def _nothing_said(fields: Mapping[str, Any], where: str) -> DataError:
    names = ", ".join(sorted(map(str, fields))[:8]) or "nothing"
    return DataError(
        f"{where}: the row says neither `tokens` nor `text`, but {names}",
        expected='{"tokens": [464, 2068, ...]}, {"text": "..."} or {"prompt": "...", "suffix": "..."}',
        fix="rename the field that holds the ids to tokens, or the one that holds the text to text",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
