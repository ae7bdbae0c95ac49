"""All sequences of a testbed out of files and corpora: forgotten, retained, held out, and nothing in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.testbed import Sequences, Window
from unmemorize.data.corpora import open_corpus
from unmemorize.data.row_files import HUB, is_row_file, row_files
from unmemorize.data.rows import Bounds, Row, Tokenization
from unmemorize.data.sequences import (
    STRETCH,
    Excess,
    Lengths,
    Refusal,
    RowSet,
    as_sequences,
    choose_lengths,
    fit,
    pieces,
    read_rows,
    without_repeats,
)
from unmemorize.data.splits import check_disjoint, set_apart, without_near_duplicates_of
from unmemorize.errors import DataError
from unmemorize.files.digests import remembered_digest

if TYPE_CHECKING:
    import torch

_POOL = 4
"""Rows that are read of a text for each one that is used: some go as near-duplicates, some become the hold-out."""

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class SequenceSource(StrictConfig):
    """Which sequences a model has memorized, and what else it shall be measured on.

    Files of sequences are `*.jsonl`, `*.parquet` (also `hf://datasets/...`), `*.npy`, `*.pt` and `*.txt` (one text on
    each line). Anything else is a corpus of texts: a folder, `python-docs`, `wikitext-103`, `package:NAME/path`.
    """

    forget: Annotated[str, Field(min_length=1)]
    """The memorized sequences: a file of sequences."""
    forget_unseen: str | Share = 0.0
    """Memorized sequences that no method is shown: a file, or the share of `forget` that is set apart."""
    retain: str | None = None
    """Texts whose behaviour is to be preserved: a file of sequences or a corpus."""
    holdout: str | Share = 0.25
    """Texts on which utility is measured: a file of sequences or a corpus, or the share of `retain` set apart."""
    general: str | None = None
    """General text as a hold-out of its own, for perplexity: a file of sequences or a corpus."""
    prompt: Count | None = None
    """Tokens shown in the extraction check; by default what the file says, else 32."""
    suffix: Count | None = None
    """Tokens that must come back; by default all after the prompt where rows are equally long, else 32."""
    max_rows: Count | None = None
    """Rows of `forget`, and of `forget_unseen`, at most, drawn at random; all by default."""
    text_rows: Count = 256
    """Rows of `retain`, and of each hold-out, at most, drawn from four times as many."""
    text_length: Annotated[int, Field(ge=2)] = 128
    """Tokens of a row of these at most: longer texts are cut into several rows."""
    short_rows: Refusal = "refuse"
    """What becomes of memorized rows without room for prompt and suffix."""
    long_rows: Excess = "refuse"
    """What becomes of memorized rows longer than the model's context; to cut keeps their beginnings."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """What becomes of texts that share most 8-grams with a memorized row, or a hold-out's with one of `retain`."""

    @model_validator(mode="after")
    def _has_a_holdout(self) -> Self:
        split_off = self.retain is not None and bool(self.holdout)
        if not (split_off or self.general or isinstance(self.holdout, str)):
            raise ValueError("there is no text on which utility is measured: set retain, holdout or general")
        return self


@dataclass(frozen=True, slots=True)
class OpenedSequences:
    """The sets of a testbed."""

    forget: Sequences
    forget_unseen: Sequences | None
    clean: Sequences | None
    """The clean counterparts of `forget`, where its rows have them."""
    retain: Sequences | None
    holdouts: dict[str, Sequences]
    """`text` (from `holdout`) and `general`."""
    window: Window
    facts: dict[str, Any]
    """How many rows each set has, and how many were left out, by reason."""


def sequences_fingerprint(source: SequenceSource) -> dict[str, str]:
    """Return a hash of what each setting names; of what lies on the hub, where it lies: planning downloads nothing.

    Raises:
        DataError: there is no such file or corpus.
    """
    named = ("forget", "forget_unseen", "retain", "holdout", "general")
    places = {name: getattr(source, name) for name in named}
    return {name: _fingerprint(place, name) for name, place in places.items() if isinstance(place, str)}


def _fingerprint(place: str, setting: str) -> str:
    if place.startswith(HUB):
        return place
    if setting.startswith("forget") or is_row_file(place):
        return remembered_digest(row_files(place, setting))
    return open_corpus(place, setting=setting).digest()


def open_sequences(
    source: SequenceSource, tokenizer: Any, bounds: Bounds, generator: Callable[[str], torch.Generator]
) -> OpenedSequences:
    """Return all sets of a testbed.

    Repeated rows are dropped; texts that are near-duplicates of memorized rows are dropped too (or refused where they
    are equal and near-duplicates are kept), and whole families of near-duplicates go to one side of each split.

    Args:
        source: what to read.
        tokenizer: the model's; none if all rows are token ids.
        bounds: the model's vocabulary and context, and the id that fills rows.
        generator: gives a fresh random generator for each label.

    Raises:
        DataError: a file or a row that cannot be used, by file and row; or a set of which nothing is left.
    """
    return _Opening(source, Tokenization(tokenizer, bounds.vocabulary), bounds, generator).open()


class _Opening:
    def __init__(
        self,
        source: SequenceSource,
        tokenization: Tokenization,
        bounds: Bounds,
        generator: Callable[[str], torch.Generator],
    ) -> None:
        self.source, self.tokenization, self.bounds, self.generator = source, tokenization, bounds, generator
        self._next_id = 0

    def open(self) -> OpenedSequences:
        memorized, lengths = self._memorized()
        texts = self._texts(list(memorized.values()))
        sets = {name: self._sequences(rows, lengths) for name, rows in memorized.items()}
        plain = Lengths(lengths.window)
        sets |= {name: self._sequences(rows, plain) for name, rows in texts.items()}
        forget = sets.pop("forget")
        return OpenedSequences(
            forget=forget,
            forget_unseen=sets.pop("forget_unseen", None),
            clean=None if forget.clean_tokens is None else forget.counterparts(),
            retain=sets.pop("retain", None),
            holdouts=sets,
            window=lengths.window,
            facts={
                "rows": {name: len(rows) for name, rows in (memorized | texts).items()},
                "dropped": {name: dict(rows.dropped) for name, rows in (memorized | texts).items() if rows.dropped},
            },
        )

    def _memorized(self) -> tuple[dict[str, RowSet], Lengths]:
        """Return `forget`, and `forget_unseen` where there is one, and the lengths of the extraction check."""
        source = self.source
        forget = self._read_memorized(source.forget, "forget")
        lengths = choose_lengths(forget, source.prompt, source.suffix)
        forget = self._fit(forget, lengths)
        if isinstance(source.forget_unseen, str):
            unseen = self._fit(self._read_memorized(source.forget_unseen, "forget_unseen"), lengths)
            return {"forget": forget, "forget_unseen": self._apart(unseen, [forget], "forget")}, lengths
        if not source.forget_unseen:
            return {"forget": forget}, lengths
        halves = set_apart(forget, source.forget_unseen, "forget_unseen", self.generator("forget_unseen"))
        halves.kept.dropped = forget.dropped
        return {"forget": halves.kept, "forget_unseen": halves.apart}, lengths

    def _read_memorized(self, place: str, setting: str) -> RowSet:
        most = self.source.max_rows
        return read_rows(place, setting, self.tokenization, most=most, generator=self.generator(setting))

    def _fit(self, rows: RowSet, lengths: Lengths) -> RowSet:
        fitting = fit(rows, lengths, self.bounds.context, short=self.source.short_rows, long=self.source.long_rows)
        return without_repeats(fitting)

    def _texts(self, memorized: list[RowSet]) -> dict[str, RowSet]:
        """Return `retain` and the hold-outs, each without what stands in the sets before it."""
        source = self.source
        made: dict[str, RowSet] = {}
        if source.retain is not None:
            retain = self._apart(self._text(source.retain, "retain"), memorized, "forget")
            if not isinstance(source.holdout, str) and source.holdout:
                halves = set_apart(retain, source.holdout, "holdout", self.generator("holdout"))
                made["retain"], made["text"] = halves.kept, halves.apart
                made["retain"].dropped = retain.dropped
            else:
                made["retain"] = retain
            made = {name: self._some(rows, name) for name, rows in made.items()}
        shown = [*memorized, *([made["retain"]] if "retain" in made else [])]
        for name, setting in (("text", "holdout"), ("general", "general")):
            place = getattr(source, setting)
            if isinstance(place, str):
                rows = self._apart(self._text(place, setting), shown, "forget or retain")
                made[name] = self._some(rows, setting)
        return made

    def _text(self, place: str, setting: str) -> RowSet:
        length, pool = self._text_length(), _POOL * self.source.text_rows
        if is_row_file(place):
            read = read_rows(place, setting, self.tokenization, most=pool, generator=self.generator(setting))
            return without_repeats(pieces(read, length))
        return without_repeats(corpus_rows(place, setting, self.tokenization, length, pool))

    def _text_length(self) -> int:
        length, context = self.source.text_length, self.bounds.context
        if context is not None and length > context:
            raise DataError(
                f"text_length = {length}, and the model reads at most {context} tokens",
                expected=f"rows of at most {context} tokens",
                fix=f"set text_length = {context}",
            )
        return length

    def _apart(self, rows: RowSet, others: list[RowSet], name: str) -> RowSet:
        if self.source.near_duplicates == "drop":
            return without_near_duplicates_of(rows, others, name)
        check_disjoint(rows, others, name)
        return rows

    def _some(self, rows: RowSet, setting: str) -> RowSet:
        import torch

        most = self.source.text_rows
        if len(rows) <= most:
            return rows
        drawn = torch.randperm(len(rows), generator=self.generator(f"rows of {setting}"))[:most]
        chosen = rows.take(sorted(drawn.tolist()))
        chosen.dropped = rows.dropped
        return chosen

    def _sequences(self, rows: RowSet, lengths: Lengths) -> Sequences:
        made = as_sequences(rows, lengths, pad_id=self.bounds.pad_id, first_id=self._next_id)
        self._next_id += len(made)
        return made


def corpus_rows(place: str, setting: str, tokenization: Tokenization, length: int, most: int) -> RowSet:
    """Return the first `most` rows of `length` tokens of a corpus, its documents one after another.

    A few consecutive rows that begin in one document are one family.

    Raises:
        DataError: there is no such corpus, no tokenizer, or less text than one row.
    """
    name = f"{setting} = {place!r}"
    rows = list(islice(_stream(place, setting, tokenization, length), most))
    if not rows:
        raise DataError(
            f"{name} has too little text for one row of {length} tokens",
            expected="more text, or shorter rows",
            fix="name a larger corpus, or lower text_length",
        )
    return RowSet(name, rows)


def _stream(place: str, setting: str, tokenization: Tokenization, length: int) -> Iterator[Row]:
    """Yield rows of exactly `length` tokens; two line breaks stand between documents."""
    waiting: list[int] = []
    source, begun = "", Counter[str]()
    for document in open_corpus(place, setting=setting).named():
        if not waiting:
            source = document.source
        where = f"{setting} = {place!r}, document {document.source!r}"
        waiting += tokenization.ids(document.text.rstrip("\n") + "\n\n", where)
        start = 0
        while len(waiting) - start >= length:
            group = f"{source} {begun[source] // STRETCH}"
            begun[source] += 1
            tokens = waiting[start : start + length]
            yield Row(tokens, group=group, where=f"{setting} = {place!r}, document {source!r}")
            start, source = start + length, document.source
        waiting = waiting[start:]
