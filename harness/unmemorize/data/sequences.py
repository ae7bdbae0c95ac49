"""Sets of sequences out of rows: where suffixes begin, what is too short or too long, what pieces text is cut in."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.testbed import Sequences, Window
from unmemorize.data.reader import open_rows
from unmemorize.data.row import Row, notes_of
from unmemorize.data.rows import MARKS, token_rows
from unmemorize.data.settings import Excess, Refusal
from unmemorize.data.tokenization import Tokenization
from unmemorize.errors import DataError

if TYPE_CHECKING:
    import torch

DEFAULT_LENGTH = 32
"""Tokens of a prompt, and of a suffix, where neither the user nor the rows say, and the rows are long enough."""
HALF = 16
"""Tokens of a prompt, or of a suffix, that a row must have room for not to be short."""
MOST_ROWS = 100_000_000
"""Rows of a source, at most: to draw among more takes gigabytes."""
SHORT, LONG = 48, 64
"""Rows shorter than the first are divided in halves; of a suffix longer than the second nearly none is extractable."""


class Lengths(NamedTuple):
    """Where the suffixes of a set begin and end."""

    window: Window
    anchored: bool = False
    """True where every row says itself where its suffix begins."""


@dataclass(slots=True)
class RowSet:
    """Rows of one purpose, and what became of the others."""

    name: str
    """The setting and what it was set to, for errors."""
    rows: list[Row]
    dropped: Counter[str] = field(default_factory=Counter)
    """How many rows were left out, by reason."""
    notes: list[str] = field(default_factory=list)
    """What is doubtful about them."""
    kind: str = ""
    """What they came in, for records."""

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, indices: Iterable[int], reason: str) -> RowSet:
        """Return the set of some of the rows; the others are counted as dropped for `reason`."""
        rows = [self.rows[index] for index in indices]
        gone = Counter({reason: len(self.rows) - len(rows)})
        return replace(self, rows=rows, dropped=self.dropped + gone)

    def but(self, rows: list[Row]) -> RowSet:
        """Return the set with other rows, and all that is said about it."""
        return replace(self, rows=rows)

    def take(self, indices: Iterable[int]) -> RowSet:
        """Return the set of some of the rows; the others are somewhere else."""
        return RowSet(self.name, [self.rows[index] for index in indices], kind=self.kind)


def read_rows(
    source: object,
    setting: str,
    tokenization: Tokenization,
    *,
    most: int | None = None,
    generator: torch.Generator | None = None,
) -> RowSet:
    """Return the rows of any source of sequences as token ids.

    Args:
        source: a file or an object, see `open_rows`.
        setting: what errors call it.
        tokenization: what texts are tokenized with, and ids checked against.
        most: take at most so many rows, drawn by `generator`, or the first ones without.
        generator: draws the rows.

    Raises:
        DataError: a source or a row that cannot be used, by source and row.
    """
    opened = open_rows(source, setting)
    total = len(opened)
    if total > MOST_ROWS:
        raise DataError(
            f"{opened.name} has {total:,} rows",
            expected=f"at most {MOST_ROWS:,}",
            fix=f"write the rows that are meant for {setting} into a file of their own",
        )
    if most is not None and most < total:
        opened = opened.select(_drawn(total, most, generator))
    dropped = Counter({"not drawn": total - len(opened)}) if len(opened) < total else Counter[str]()
    rows = token_rows(opened, tokenization)
    return RowSet(
        opened.name, rows, dropped, notes_of(rows), str(source) if isinstance(source, (str, Path)) else opened.kind
    )


def _drawn(total: int, most: int, generator: torch.Generator | None) -> list[int]:
    import torch

    if generator is None:
        return list(range(most))
    return sorted(torch.randperm(total, generator=generator)[:most].tolist())


def choose_lengths(
    rows: RowSet,
    prompt: int | None = None,
    suffix: int | None = None,
    context: int | None = None,
    *,
    short: Refusal = "refuse",
) -> Lengths:
    """Return the lengths of the extraction check: what is given, else what all rows say, else 32 + 32.

    No suffix is longer than what every row has after its prompt, unless it is given or the rows say where theirs end.
    Where the shortest row has fewer than 48 tokens, prompt and suffix are its halves; rows that are to be dropped where
    they are short do not count beside ones of at least 48 (or, where none has so many, half of the longest).

    Raises:
        DataError: some rows say how long their prompt is, others do not, and none is given.
    """
    own = {row.prompt for row in rows.rows}
    if prompt is None and own != {None}:
        _check_all_say(rows)
        return _own_lengths(rows, suffix, short)
    sizes = [min(len(row.tokens), context or sys.maxsize) for row in rows.rows]
    enough = _enough(max(sizes), SHORT if prompt is None and suffix is None else (prompt or HALF) + (suffix or HALF))
    counted = [size for size in sizes if size >= enough]
    shortest = min(counted if short == "drop" and counted else sizes)
    if prompt is None and suffix is None:
        prompt = DEFAULT_LENGTH if shortest >= SHORT else max(1, shortest // 2)
    elif prompt is None:
        prompt = max(1, min(DEFAULT_LENGTH, shortest - (suffix or 0)))
    chosen = Window(prompt, suffix or max(1, min(DEFAULT_LENGTH, shortest - prompt)))
    if 1 < shortest < enough and None in (prompt, suffix):
        rows.notes += _shortened(rows, chosen, shortest, len(counted))
    return Lengths(chosen)


def _enough(longest: int, wanted: int) -> int:
    """Return from which length on a row is not short beside others of which the longest has `longest` tokens."""
    return wanted if longest >= wanted else max(2, longest // 2)


def _own_lengths(rows: RowSet, suffix: int | None, short: Refusal) -> Lengths:
    prompts, rests = [row.prompt or 0 for row in rows.rows], [len(row.tokens) - (row.prompt or 0) for row in rows.rows]
    asked = [row.suffix for row in rows.rows if row.suffix is not None]
    if suffix is None and asked:
        suffix = max(asked)
        if suffix > LONG:
            rows.notes.append(
                f"the longest suffix has {suffix} tokens, and so many come back word for word from nearly no model: "
                f"suffix = {DEFAULT_LENGTH} checks the first {DEFAULT_LENGTH}"
            )
    elif suffix is None:
        suffix = _common_suffix(rows, rests, short)
    differing = len(set(prompts)) > 1
    if differing:
        rows.notes.append(
            f"the rows' own prompts have {min(prompts)} to {max(prompts)} tokens: each row is shown its own, and must "
            f"give what comes after it, at most {suffix} tokens"
        )
    return Lengths(Window(min(prompts), suffix), differing or (bool(asked) and any(rest < suffix for rest in rests)))


def _common_suffix(rows: RowSet, rests: list[int], short: Refusal) -> int:
    enough = _enough(max(rests), HALF)
    counted = [rest for rest in rests if rest >= enough]
    shortest = min(counted if short == "drop" and counted else rests)
    if shortest < enough:
        where = rows.rows[rests.index(shortest)].where
        rows.notes.append(
            f"suffixes of {shortest} tokens are checked, because the row with the fewest after its prompt ({where}) "
            f"has {shortest}: set short_rows = 'drop' to check the {len(counted)} longer ones at more"
        )
    return min(DEFAULT_LENGTH, shortest)


def _check_all_say(rows: RowSet) -> None:
    silent = next((row for row in rows.rows if row.prompt is None), None)
    if silent is not None:
        raise DataError(
            f"{silent.where}: the row does not say how long its prompt is, and others do",
            expected="a prompt in all rows, or in none",
            fix="set prompt = 32 for all rows, or write `prompt` into this one",
        )


def _shortened(rows: RowSet, window: Window, shortest: int, longer: int) -> list[str]:
    """Say that a few short rows decide over the lengths of all."""
    where = next(row.where for row in rows.rows if len(row.tokens) == shortest)
    return [
        f"the check is of {window.prompt} + {window.suffix} tokens, because the shortest row ({where}) has {shortest}: "
        f"set short_rows = 'drop' to check the {longer} longer ones at more"
    ]


def fit(rows: RowSet, lengths: Lengths, context: int | None, *, short: Refusal, long: Excess) -> RowSet:
    """Return the rows that hold a whole prompt and suffix, none longer than the model can read.

    Args:
        rows: the rows.
        lengths: of the extraction check.
        context: the longest sequence that the model can read, if it has a bound.
        short: what becomes of a row without room for prompt and suffix.
        long: what becomes of a row that is longer than `context`; to cut keeps its beginning.

    Raises:
        DataError: rows that are refused, or nothing is left.
    """
    needed = 2 if lengths.anchored else sum(lengths.window)
    if context is not None and needed > context:
        raise DataError(
            f"prompt + suffix = {needed} tokens, and the model reads at most {context}",
            expected=f"a prompt and a suffix of at most {context} tokens together",
            fix=f"set prompt = {context // 2} and suffix = {context - context // 2}, or less",
        )
    return _some_left(_whole(_within(rows, context, long), lengths, short))


def _within(rows: RowSet, context: int | None, long: Excess) -> RowSet:
    over = [index for index, row in enumerate(rows.rows) if context is not None and len(row.tokens) > context]
    if not over or context is None:
        return rows
    if long == "refuse":
        raise _too_long(rows, over, context)
    if long == "cut":
        return rows.but([cut(row, context) for row in rows.rows])
    return rows.keep(sorted(set(range(len(rows))) - set(over)), "longer than the context")


def _whole(rows: RowSet, lengths: Lengths, short: Refusal) -> RowSet:
    def needed(row: Row) -> int:
        return (row.prompt or 0) + 1 if lengths.anchored else sum(lengths.window)

    under = [index for index, row in enumerate(rows.rows) if len(row.tokens) < needed(row)]
    if under and short == "refuse":
        raise _too_short(rows, under, lengths.window)
    return rows.keep(sorted(set(range(len(rows))) - set(under)), "shorter than prompt + suffix")


def cut(row: Row, length: int) -> Row:
    """Return the beginning of a row."""
    clean = None if row.clean is None else row.clean[:length]
    return replace(row, tokens=row.tokens[:length], clean=clean)


def _too_long(rows: RowSet, long_rows: list[int], context: int) -> DataError:
    first = rows.rows[long_rows[0]]
    return DataError(
        f"{first.where}: the row has {len(first.tokens)} tokens, and the model reads at most {context} "
        f"({len(long_rows)} such rows of {len(rows)})",
        expected=f"rows of at most {context} tokens",
        fix="set long_rows = 'cut' to keep their beginnings, or 'drop' to leave them out",
    )


def _too_short(rows: RowSet, short_rows: list[int], window: Window) -> DataError:
    first, shortest = rows.rows[short_rows[0]], min(len(row.tokens) for row in rows.rows)
    return DataError(
        f"{first.where}: the row has {len(first.tokens)} tokens, too few for a prompt of {window.prompt} and a suffix "
        f"of {window.suffix} ({len(short_rows)} such rows of {len(rows)})",
        expected=f"rows of at least prompt + suffix = {sum(window)} tokens",
        fix=(
            f"set prompt = {shortest // 2} and suffix = {shortest - shortest // 2}, or "
            if 1 < shortest < sum(window)
            else "give rows of at least 2 tokens, or set "
        )
        + "short_rows = 'drop' to leave such rows out",
    )


def _some_left(rows: RowSet) -> RowSet:
    if len(rows):
        return rows
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rows.dropped.items()) if count)
    raise DataError(
        f"{rows.name}: no row is left ({reasons})",
        expected="at least one row that can be used",
        fix="use longer rows, or a smaller prompt and suffix",
    )


def without_repeats(rows: RowSet) -> RowSet:
    """Return the rows without those whose tokens stand in an earlier row."""
    first: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(rows.rows):
        first.setdefault(tuple(row.tokens), index)
    return rows.keep(first.values(), "repeated")


STRETCH = 4
"""Consecutive rows of one text that stay together in a split; of more, a single long text could not be split."""


def pieces(rows: RowSet, length: int) -> RowSet:
    """Cut rows into pieces of at most `length` tokens; a last piece of one token is left out: it predicts nothing.

    What stands before every text stands before each piece of one. A few consecutive pieces of a row are one family,
    unless the row names its own.
    """
    made = [
        Row(tokens, group=row.group or f"{row.where} {number // STRETCH}", copies=row.copies, where=row.where)
        for row in rows.rows
        for number, tokens in enumerate(_cut_up(row, length))
        if len(tokens) > 1 + row.leading
    ]
    gone = Counter({"of one token, which predicts nothing": len(rows)} if not made else {})
    return _some_left(replace(rows, rows=made, dropped=rows.dropped + gone))


def _cut_up(row: Row, length: int) -> Iterator[list[int]]:
    leading, body = row.tokens[: row.leading], row.tokens[row.leading :]
    step = max(1, length - row.leading)
    return (leading + body[start : start + step] for start in range(0, len(body), step))


def without_marked(rows: RowSet) -> RowSet:
    """Return the rows that `find` did not mark as trivial, overlapping or duplicate."""
    for mark in MARKS:
        rows = rows.keep([index for index, row in enumerate(rows.rows) if row.mark != mark], f"marked {mark}")
    return _some_left(rows)


def as_sequences(rows: RowSet, lengths: Lengths, *, pad_id: int = 0, first_id: int = 0) -> Sequences:
    """Return rows as padded sequences; their ids count up from `first_id`."""
    import torch

    clean = [row.clean for row in rows.rows if row.clean is not None]
    made = Sequences.from_rows(
        [row.tokens for row in rows.rows],
        prompt=lengths.window.prompt,
        pad_id=pad_id,
        clean_rows=clean or None,
        first_id=first_id,
    )
    starts = made.suffix_starts
    if lengths.anchored:
        starts = torch.tensor([row.prompt or lengths.window.prompt for row in rows.rows])
    starts = starts.minimum(made.lengths - 1)  # texts may be shorter than a prompt
    copies = torch.tensor([row.copies for row in rows.rows])
    return replace(made, suffix_starts=starts, copies=copies, anchored=lengths.anchored)


def token_lists(rows: RowSet | Sequence[Row]) -> list[list[int]]:
    """Return the tokens of each row."""
    return [row.tokens for row in (rows.rows if isinstance(rows, RowSet) else rows)]
