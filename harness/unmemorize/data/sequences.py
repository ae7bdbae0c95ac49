"""Sets of sequences out of rows: where suffixes begin, what is too short or too long, what pieces text is cut in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from unmemorize.contracts.testbed import Sequences, Window
from unmemorize.data.row_files import open_rows
from unmemorize.data.rows import Row, Tokenization, token_rows
from unmemorize.errors import DataError

if TYPE_CHECKING:
    import torch

DEFAULT_LENGTH = 32
"""Tokens of a prompt, and of a suffix, where neither the user nor the file says."""

Refusal = Literal["refuse", "drop"]
Excess = Literal["refuse", "cut", "drop"]


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

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, indices: Iterable[int], reason: str) -> RowSet:
        """Return the set of some of the rows; the others are counted as dropped for `reason`."""
        rows = [self.rows[index] for index in indices]
        gone = Counter({reason: len(self.rows) - len(rows)})
        return RowSet(self.name, rows, self.dropped + gone)

    def take(self, indices: Iterable[int]) -> RowSet:
        """Return the set of some of the rows; the others are somewhere else."""
        return RowSet(self.name, [self.rows[index] for index in indices])


def read_rows(
    place: str,
    setting: str,
    tokenization: Tokenization,
    *,
    most: int | None = None,
    generator: torch.Generator | None = None,
) -> RowSet:
    """Return the rows of a file of sequences as token ids.

    Args:
        place: the file, see `open_rows`.
        setting: what errors call it.
        tokenization: what texts are tokenized with, and ids checked against.
        most: take at most so many rows, drawn by `generator`, or the first ones without.
        generator: draws the rows.

    Raises:
        DataError: a file or a row that cannot be used, by file and row.
    """
    file = open_rows(place, setting)
    total = len(file)
    if most is not None and most < total:
        file = file.select(_drawn(total, most, generator))
    dropped = Counter({"not drawn": total - len(file)}) if len(file) < total else Counter[str]()
    return RowSet(file.name, token_rows(file, tokenization), dropped)


def _drawn(total: int, most: int, generator: torch.Generator | None) -> list[int]:
    import torch

    if generator is None:
        return list(range(most))
    return sorted(torch.randperm(total, generator=generator)[:most].tolist())


def choose_lengths(rows: RowSet, prompt: int | None, suffix: int | None) -> Lengths:
    """Return the lengths of the extraction check: what is given, else what the rows say, else 32 + 32.

    Where all rows are equally long, the suffix is by default all that follows the prompt.
    """
    own = {row.prompt for row in rows.rows}
    shown = prompt if prompt is not None else DEFAULT_LENGTH
    anchored = False
    if prompt is None and None not in own:
        shown, anchored = min(length for length in own if length), len(own) > 1
    rests = {len(row.tokens) - (row.prompt or 0 if anchored else shown) for row in rows.rows}
    if suffix is None:
        suffix = max(rests) if anchored or (len(rests) == 1 and min(rests) > 0) else DEFAULT_LENGTH
    return Lengths(Window(shown, suffix), anchored)


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
        return RowSet(rows.name, [cut(row, context) for row in rows.rows], rows.dropped)
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
        fix=f"set prompt = {max(1, shortest // 2)} and suffix = {max(1, shortest - shortest // 2)}, "
        "or short_rows = 'drop' to leave such rows out",
    )


def _some_left(rows: RowSet) -> RowSet:
    if len(rows):
        return rows
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rows.dropped.items()))
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

    A few consecutive pieces of a row are one family, unless the row names its own.
    """
    made = [
        Row(tokens, group=row.group or f"{row.where} {number // STRETCH}", copies=row.copies, where=row.where)
        for row in rows.rows
        for number, start in enumerate(range(0, len(row.tokens), length))
        if len(tokens := row.tokens[start : start + length]) > 1
    ]
    return _some_left(RowSet(rows.name, made, rows.dropped))


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


class SequenceSet(NamedTuple):
    """A file of sequences, ready to be used."""

    sequences: Sequences
    window: Window
    """The lengths of its extraction check."""
    dropped: dict[str, int]
    """How many rows were left out, by reason."""


def read_sequences(  # noqa: PLR0913  as `find`: keywords
    place: str,
    *,
    setting: str = "forget",
    tokenizer: object = None,
    vocabulary: int | None = None,
    context: int | None = None,
    lengths: tuple[int | None, int | None] = (None, None),
    short: Refusal = "refuse",
    long: Excess = "refuse",
    pad_id: int = 0,
) -> SequenceSet:
    """Return the sequences of a file.

    Args:
        place: `*.jsonl`, `*.parquet` (also on the hub, `hf://...`), `*.npy`, `*.pt` or `*.txt`, see `open_rows`.
        setting: what errors call it.
        tokenizer: what texts are tokenized with; not needed for rows of token ids.
        vocabulary: ids from 0 to this, exclusive, are ids; not checked if it is none.
        context: the longest sequence that the model can read, if it has a bound.
        lengths: of prompt and suffix; by default what the file says, else 32 and what follows.
        short: what becomes of rows without room for prompt and suffix.
        long: what becomes of rows longer than `context`.
        pad_id: what fills rows on the right.

    Raises:
        DataError: the file, or one of its rows, cannot be used.
    """
    rows = read_rows(place, setting, Tokenization(tokenizer, vocabulary))
    chosen = choose_lengths(rows, *lengths)
    rows = without_repeats(fit(rows, chosen, context, short=short, long=long))
    return SequenceSet(as_sequences(rows, chosen, pad_id=pad_id), chosen.window, dict(rows.dropped))


def token_lists(rows: RowSet | Sequence[Row]) -> list[list[int]]:
    """Return the tokens of each row."""
    return [row.tokens for row in (rows.rows if isinstance(rows, RowSet) else rows)]
