"""Padding of rows: left out by their masks, or told from tokens by what ids are called and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unmemorize.data.row import Row, abridged
from unmemorize.data.tokenization import Tokenization
from unmemorize.errors import DataError


def unmasked(tokens: list[int], mask: Any, where: str) -> list[int]:
    """Return the tokens that an attention mask keeps.

    Raises:
        DataError: it is of another length, or does not keep one run of tokens.
    """
    told = isinstance(mask, Sequence) and all(isinstance(one, (int, float)) and one in (0, 1) for one in mask)
    kept = [index for index, one in enumerate(mask) if one] if told else []
    if not kept or len(mask) != len(tokens) or kept[-1] - kept[0] + 1 != len(kept):
        raise DataError(
            f"{where}: attention_mask is {abridged(mask)}",
            expected=f"{len(tokens)} numbers, as many as tokens: 1 for the tokens, which stand together, 0 for padding",
            fix="correct attention_mask in this row, or remove it together with the padding",
        )
    return tokens[kept[0] : kept[-1] + 1]


def without_padding(rows: list[Row], tokenization: Tokenization, *, rectangular: bool) -> list[Row]:
    """Return the rows without padding at their beginnings and ends.

    In an array a run of what is called padding is padding: rows of an array neither begin nor end in it. Otherwise an
    id that also begins or ends texts is padding only where, on one side, some row has it more than once; and, where
    nothing calls it padding, only in an array. What the tokenizer puts before a text stays.
    """
    ends = tokenization.ends | {*tokenization.leading}
    fills = tokenization.padding | (ends if rectangular else frozenset())
    doubtful = ends - tokenization.padding if rectangular else ends
    judged = [row for row in rows if row.may_be_padded]
    for fill in sorted(fills):
        at_least, own = 2 if fill in doubtful else 1, int(tokenization.leading == (fill,))
        runs = [(_run(row.tokens, fill), _run(row.tokens[::-1], fill)) for row in judged]
        before, after = (max((run[side] for run in runs), default=0) >= at_least for side in (0, 1))
        sizes = [(max(0, run[0] - own) if before else 0, run[1] if after else 0) for run in runs]
        cut = {id(row): each for row, each in zip(judged, sizes, strict=True)}
        rows = [_cut_padding(row, *cut.get(id(row), (0, 0))) for row in rows]
        judged = [row for row in rows if row.may_be_padded]
    return rows


def _run(tokens: Sequence[int], fill: int) -> int:
    return next((index for index, token in enumerate(tokens) if token != fill), len(tokens))


def _cut_padding(row: Row, before: int, after: int) -> Row:
    if not before and not after:
        return row
    tokens = row.tokens[before : len(row.tokens) - after]
    if not tokens:
        raise DataError(
            f"{row.where}: the row is padding only (id {row.tokens[0]})",
            expected="at least one token",
            fix="remove the row; if this id is no padding here, give the rows with an attention_mask of ones",
        )
    prompt, fill = None if row.prompt is None else max(1, row.prompt - before), row.tokens[0 if before else -1]
    return replace(row, tokens=tokens, prompt=prompt, note=row.note or f"padding (id {fill}) was left out")
