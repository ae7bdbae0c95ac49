"""Rows of fields as token ids: tokenized where they are text, and checked, each error with its source and row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from unmemorize.contracts.config import LARGEST
from unmemorize.data.padding import unmasked, without_padding
from unmemorize.data.row import Row, abridged
from unmemorize.data.row_source import Bare, RowSource, is_missing
from unmemorize.data.tokenization import Tokenization, check_encodable
from unmemorize.errors import DataError
from unmemorize.files.parsing import parsed

MARKS = ("trivial", "overlaps", "duplicate")
"""What `find` says about a window that counts for less."""


_IGNORED = -100
_LABELS = ", the padding of labels"
_CORRECTED: dict[type, str] = {
    list: "write one row as one list of ids: of a tensor of shape (1, T), tensor[0]",
    dict: "write one row as one list of ids",
}
"""What to do where an id is something else."""


class _Part(NamedTuple):
    tokens: list[int]
    prompt: int | None = None
    leading: int = 0
    suffix: int | None = None
    note: str = ""


def token_rows(source: RowSource, tokenization: Tokenization) -> list[Row]:
    """Return the rows of a source as token ids; `FIELDS` says what a row may say.

    Raises:
        DataError: a row that says nothing, or too much, or whose ids are not ids of this vocabulary; named by source
            and row.
    """
    rows: list[Row] = []
    bare: str | None = None
    for index in range(len(source)):
        fields, where = source.fields(index), source.at(index)
        if isinstance(fields, Bare):
            if is_missing(fields.get("tokens", "")):
                raise _missing(where)
            part = next(iter(fields))
            if part != (bare or part):
                raise _mixed(part, where)
            bare = part
        rows.append(_row(fields, tokenization, where))
    _check_counterparts(rows)
    return _ended(without_padding(rows, tokenization, rectangular=source.rectangular))


def _ended(rows: list[Row]) -> list[Row]:
    """Return rows that say that suffixes of several lengths must come back so that each ends with its own."""
    if len({row.suffix for row in rows if row.suffix is not None}) < 2:
        return rows
    return [
        row if row.suffix is None else replace(row, tokens=row.tokens[: (row.prompt or 0) + row.suffix]) for row in rows
    ]


def text_of(fields: Mapping[str, Any], where: str) -> str | None:
    """Return the text of a row, of prompt and suffix together where it has these; none where it is ids or messages.

    Raises:
        DataError: it says nothing, or no text where there should be one.
    """
    said = _renamed(fields, where)
    if "tokens" in said or "messages" in said:
        return None
    if "text" not in said and isinstance(said.get("prompt"), str) and isinstance(said.get("suffix"), str):
        said["text"] = said["prompt"] + said["suffix"]
    if isinstance(text := said.get("text"), str):
        check_encodable(text, "text", where)
        return text
    if "suffix" in said:
        return None
    raise _nothing_said(said, where)


def _check_counterparts(rows: Sequence[Row]) -> None:
    without = [row for row in rows if row.clean is None]
    if 0 < len(without) < len(rows):
        raise DataError(
            f"{without[0].where}: the row has no clean counterpart, and others have one",
            expected="`clean_tokens` or `clean_text` in all rows, or in none",
            fix="add what the model shall generate in this row's place, or remove the field everywhere",
        )


def _row(fields: Mapping[str, Any], tokenization: Tokenization, where: str) -> Row:
    said = _renamed(fields, where)
    _check_said_once(said, where)
    tokens, prompt, leading, suffix, note = _sequence(said, tokenization, where)
    if prompt is not None and not 0 < prompt < len(tokens):
        raise DataError(
            f"{where}: prompt = {prompt}, and the row has {len(tokens)} tokens",
            expected="a prompt of at least one token, and at least one token after it",
            fix="correct the row's prompt, or remove the field",
        )
    return Row(
        tokens, prompt, _group(said, where), _copies(said, where), _clean(said, tokenization, where), where, leading,
        suffix,
        mark=_mark(said, where),
        may_be_padded="tokens" in said and "attention_mask" not in said,
        note=note,
    )  # fmt: skip


def _renamed(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields with one name for each meaning, without those that say nothing.

    Raises:
        DataError: a row that says one thing twice, and not the same.
    """
    said = dict(fields)
    for other, name in (("input_ids", "tokens"), ("completion", "suffix")):
        if other in said:
            value = said.pop(other)
            if said.setdefault(name, value) != value:
                raise DataError(
                    f"{where}: the row says both {name} and {other}, and they differ",
                    expected=f"one of them: {other} means the same as {name}",
                    fix=f"remove {other}, or {name}",
                )
    return said


def _check_said_once(said: Mapping[str, Any], where: str) -> None:
    """Refuse a conversation beside the ids or the text that it stands in place of."""
    other = next((name for name in ("tokens", "text") if said.get("messages") is not None and name in said), None)
    if other is not None:
        raise DataError(
            f"{where}: the row says both messages and {other}",
            expected=f"one of them: messages stand in place of {other}",
            fix=f"remove {other}, or messages",
        )


def _check_text(text: Any, tokens: list[int], tokenization: Tokenization, where: str) -> None:
    """Refuse ids that say something else than the text beside them, of which they may be a part.

    A window may begin and end inside a word or a character, and tokenizers change letters: what is compared is the
    inner part, with the text and with what the tokenizer makes of it.
    """
    if tokenization.tokenizer is None or not isinstance(text, str):
        return
    decode, cut = tokenization.tokenizer.decode, min(4, len(tokens) // 8)
    whole = _solid(_text(text, "text", where))
    read = _solid(decode(tokenization.body(text, where), skip_special_tokens=True))
    own = tokens[tokenization.led_by(tokens) :]
    inner = _solid(decode(own[cut : len(own) - cut], skip_special_tokens=True))
    if not any(inner in one for one in (whole, read)) and _solid(decode(tokens)) != whole:
        raise DataError(
            f"{where}: the row says both tokens and text, and they differ: the tokens are {abridged(decode(tokens))}",
            expected="the ids of the text, or one of the two alone",
            fix="remove tokens, or text; or tokenize with the model's own tokenizer",
        )


def _solid(text: str) -> str:
    """Return a text without white space, which not every tokenizer keeps, and without halves of characters."""
    return "".join(text.replace("\ufffd", "").split())


def _sequence(said: Mapping[str, Any], tokenization: Tokenization, where: str) -> _Part:
    """Return the tokens of a row, and what it says about its prompt."""
    if "tokens" in said:
        return _of_ids(said, tokenization, where)
    if "attention_mask" in said:
        raise _beside("attention_mask", "has a meaning beside `tokens` only", where)
    if "text" in said:
        return _of_text(said, tokenization, where)
    if "messages" in said:
        whole, shown, _ = tokenization.chat(said["messages"], where)
        _checked(whole, "messages", tokenization, where)
        led, note = tokenization.led_by(whole), "" if shown else "messages end without an answer of the assistant"
        return _Part(whole, shown or None, led, len(whole) - shown if shown else None, note)
    if "suffix" in said and said.get("prompt") is not None:
        return _of_pair(said["prompt"], said["suffix"], tokenization, where)
    raise _nothing_said(said, where)


def _of_ids(said: Mapping[str, Any], tokenization: Tokenization, where: str) -> _Part:
    tokens = _ids(said["tokens"], "tokens", tokenization, where)
    if "attention_mask" in said:
        tokens = unmasked(tokens, said["attention_mask"], where)
    _check_text(said.get("text"), tokens, tokenization, where)
    prompt, suffix = said.get("prompt"), said.get("suffix")
    if prompt is None:
        if suffix is not None:
            raise _beside("suffix", "has a meaning beside `prompt` only", where)
        return _Part(tokens)
    shown = _number(prompt, "prompt", where)
    if suffix is None:
        return _Part(tokens, shown)
    asked = _number(suffix, "suffix", where)
    if not 0 < asked <= len(tokens) - shown:
        raise DataError(
            f"{where}: prompt + suffix = {shown} + {asked}, and the row has {len(tokens)} tokens",
            expected="as many tokens as prompt and suffix need",
            fix="correct prompt or suffix in this row, or remove them",
        )
    return _Part(tokens, shown, suffix=asked)


def _of_text(said: Mapping[str, Any], tokenization: Tokenization, where: str) -> _Part:
    text, prompt, suffix = _text(said["text"], "text", where), said.get("prompt"), said.get("suffix")
    if isinstance(prompt, str):
        if not text.startswith(prompt) or (suffix is not None and prompt + suffix != text):
            raise _beside("prompt", "is no beginning of `text`, or `suffix` is not its rest", where)
        return _of_pair(prompt, text[len(prompt) :], tokenization, where)
    if suffix is not None:
        raise _beside("suffix", "has a meaning beside a `prompt` that is a text", where)
    tokens = _checked(tokenization.ids(text, where), "text", tokenization, where)
    shown = None if prompt is None else _number(prompt, "prompt", where)
    return _Part(tokens, shown, tokenization.led_by(tokens))


def _of_pair(prompt: Any, suffix: Any, tokenization: Tokenization, where: str) -> _Part:
    if isinstance(prompt, str) and isinstance(suffix, str):
        made = tokenization.pair(_text(prompt, "prompt", where), _text(suffix, "suffix", where), where)
        _checked(made.tokens, "prompt", tokenization, where)
        asked = len(made.tokens) - made.prompt
        return _Part(made.tokens, made.prompt, tokenization.led_by(made.tokens), asked, made.note)
    if isinstance(prompt, str) or isinstance(suffix, str):
        raise _beside("suffix", "is not of the same kind as `prompt`", where)
    shown, rest = (_ids(value, part, tokenization, where) for value, part in ((prompt, "prompt"), (suffix, "suffix")))
    return _Part(shown + rest, len(shown), suffix=len(rest))


def _text(value: Any, part: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {part} is {abridged(value)}", expected="a text", fix=f"correct {part} in this row")
    if not value.strip():
        raise _empty(where, part)
    check_encodable(value, part, where)
    return value


def _ids(value: Any, part: str, tokenization: Tokenization, where: str) -> list[int]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _from_json(value)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise DataError(
            f"{where}: {part} is {'the text ' if isinstance(value, str) else ''}{abridged(value)}",
            expected="a list of token ids" + (", a text, or beside `tokens` a number" if part == "prompt" else ""),
            fix=f"correct {part} in this row; a text goes into the field `text`",
        )
    return _checked(value, part, tokenization, where)


def _from_json(value: str) -> Any:
    """Return the list that a table or a spreadsheet has turned into text."""
    try:
        return parsed(json.loads, value)
    except ValueError:
        return value


def _checked(ids: Sequence[Any], part: str, tokenization: Tokenization, where: str) -> list[int]:
    if not len(ids):
        raise _empty(where, part)
    found = []
    for position, value in enumerate(ids):
        number = value if type(value) is int else _plain_number(value)
        if not _is_id(number):
            raise DataError(
                f"{where}: {part}[{position}] is {abridged(number)}" + (_LABELS if number == _IGNORED else ""),
                expected="integers from 0 on: token ids",
                fix=_CORRECTED.get(type(number), "write the ids themselves; texts go into the field `text`"),
            )
        if tokenization.vocabulary is not None and number >= tokenization.vocabulary:
            raise DataError(
                f"{where}: {part}[{position}] is {number}, outside the model's vocabulary",
                expected=f"ids from 0 to {tokenization.vocabulary - 1}",
                fix="tokenize with the model's own tokenizer",
            )
        found.append(number)
    return found


def _plain_number(value: Any) -> Any:
    """Return the number of an array or tensor as Python's own."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _number(value: Any, part: str, where: str) -> int:
    number = _plain_number(value)
    if not _is_id(number):
        raise DataError(
            f"{where}: {part} is {abridged(value)}",
            expected=f"a number of tokens: beside ids, {part} says how many there are",
            fix=f'correct {part} in this row, or write texts alone: {{"prompt": "...", "suffix": "..."}}',
        )
    return int(number)


def _group(fields: Mapping[str, Any], where: str) -> str | None:
    group = _plain_number(fields.get("group"))
    if group is not None and (isinstance(group, bool) or not isinstance(group, (str, int, float))):
        raise DataError(
            f"{where}: group is {abridged(group)}",
            expected="the name or the number of one family",
            fix="correct group in this row, or remove it",
        )
    return None if is_missing(group) else str(group)


def _mark(fields: Mapping[str, Any], where: str) -> str | None:
    for mark in MARKS:
        if not isinstance(value := _plain_number(fields.get(mark)), bool | None):
            raise DataError(
                f"{where}: {mark} is {abridged(value)}",
                expected="true or false",
                fix=f"correct {mark} in this row, or remove it",
            )
    return next((mark for mark in MARKS if fields.get(mark) is True), None)


def _copies(fields: Mapping[str, Any], where: str) -> int:
    copies = _plain_number(fields.get("copies", 1))
    if not _is_id(copies):
        raise DataError(
            f"{where}: copies is {abridged(copies)}",
            expected="how often the sequence stands in the training data: 0, 1, 2, ...",
            fix="correct copies in this row, or remove it",
        )
    return int(copies)


def _clean(fields: Mapping[str, Any], tokenization: Tokenization, where: str) -> list[int] | None:
    if "clean_tokens" in fields:
        return _ids(fields["clean_tokens"], "clean_tokens", tokenization, where)
    if "clean_text" in fields:
        text = _text(fields["clean_text"], "clean_text", where)
        return _checked(tokenization.ids(text, where), "clean_text", tokenization, where)
    return None


def _empty(where: str, part: str) -> DataError:
    return DataError(
        f"{where}: {part} is empty",
        expected="at least one token",
        fix="remove the row, or write what the model shall generate",
    )


def _missing(where: str) -> DataError:
    return DataError(
        f"{where}: the row is missing",
        expected="a text, or a list of token ids",
        fix="remove the row, in pandas and polars with dropna() and drop_nulls()",
    )


def _beside(part: str, problem: str, where: str) -> DataError:
    return DataError(
        f"{where}: {part} {problem}",
        expected='{"tokens": [...], "prompt": 32}, {"text": "..."} or {"prompt": "...", "suffix": "..."}',
        fix=f"correct {part} in this row, or remove it",
    )


def _mixed(part: str, where: str) -> DataError:
    here, before = ("text", "token ids") if part == "text" else ("token ids", "text")
    return DataError(
        f"{where}: the row is {here}, and those before it are {before}",
        expected="texts only, or lists of token ids only",
        fix='say in each row what it is: {"text": "..."} or {"tokens": [464, 2068, ...]}',
    )


def _nothing_said(fields: Mapping[str, Any], where: str) -> DataError:
    names = ", ".join(sorted(map(str, fields))[:8]) or "nothing"
    return DataError(
        f"{where}: the row says neither `tokens` nor `text`, but {names}",
        expected='{"tokens": [464, 2068, ...]}, {"text": "..."} or {"prompt": "...", "suffix": "..."}',
        fix="rename the field that holds the ids to tokens, or the one that holds the text to text",
    )
