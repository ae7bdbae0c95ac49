"""All sequences of a testbed out of files and corpora: forgotten, retained, held out, and nothing in two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import Field, model_validator

from unmemorize.contracts.testbed import Sequences, Window
from unmemorize.data.corpora import Corpus, open_corpus
from unmemorize.data.reader import check_is_place
from unmemorize.data.row import Row
from unmemorize.data.row_files import HUB, is_row_file, row_files
from unmemorize.data.sequences import (
    STRETCH,
    Lengths,
    RowSet,
    as_sequences,
    choose_lengths,
    fit,
    pieces,
    read_rows,
    without_marked,
    without_repeats,
)
from unmemorize.data.settings import SequenceSettings
from unmemorize.data.splits import check_disjoint, split_off, without_near_duplicates_of
from unmemorize.data.tokenization import Bounds, Tokenization
from unmemorize.errors import DataError
from unmemorize.files.digests import remembered_digest

if TYPE_CHECKING:
    import torch

_TEXT_LENGTH = 128
_DRAWING = "2"
"""Raised whenever other rows are drawn at the same seed, so that older records are not taken for new ones."""
_POOL = 4
"""Rows that are read of a text for each one that is used: some go as near-duplicates, some become the hold-out."""

Share = Annotated[float, Field(ge=0, lt=1)]


class SequenceSource(SequenceSettings):
    """Which sequences a model has memorized, and what else it shall be measured on.

    Files of sequences are `*.jsonl`, `*.parquet` (also `hf://datasets/...`), `*.npy`, `*.pt` and `*.txt` (one text on
    each line). Anything else is a corpus of texts: a folder, `python-docs`, `wikitext-103`, `package:NAME/path`.
    """

    forget: Annotated[str, Field(min_length=1)]
    """The memorized sequences: a file of sequences."""
    forget_unseen: str | Share = 0.0
    """Memorized sequences that no method is shown: a file, or the share of `forget` that is split off."""
    retain: str | None = None
    """Texts whose behaviour is to be preserved: a file of sequences or a corpus."""
    holdout: str | Share = 0.25
    """Texts on which utility is measured: a file of sequences or a corpus, or a share split off `retain`."""
    general: str | None = None
    """General text as a hold-out of its own, for perplexity: a file of sequences or a corpus."""

    @model_validator(mode="after")
    def _has_a_holdout(self) -> Self:
        split_off = self.retain is not None and bool(self.holdout)
        if not (split_off or self.general or isinstance(self.holdout, str)):
            raise ValueError("there is no text on which utility is measured: set retain, holdout or general")
        return self


class Sources(NamedTuple):
    """Where each set comes from: anything that `open_rows` reads; of the last three also a corpus, or its name."""

    forget: object
    forget_unseen: object = None
    """Or the share of `forget` that is set apart."""
    retain: object = None
    holdout: object = None
    """Or the share of `retain` that is set apart."""
    general: object = None


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
    """Return a hash of what each setting names, and how rows are drawn.

    Of what lies on the hub it is where it lies: planning downloads nothing.

    Raises:
        DataError: there is no such file or corpus.
    """
    named = ("forget", "forget_unseen", "retain", "holdout", "general")
    places = {name: getattr(source, name) for name in named}
    hashes = {name: _fingerprint(place, name) for name, place in places.items() if isinstance(place, str)}
    return {**hashes, "drawing": _DRAWING}


def _fingerprint(place: str, setting: str) -> str:
    if place.startswith(HUB):
        return place
    if setting.startswith("forget") or is_row_file(place):
        return remembered_digest(row_files(place, setting))
    return open_corpus(place, setting=setting).digest()


def open_sequences(
    source: SequenceSource, tokenizer: Any, bounds: Bounds, generator: Callable[[str], torch.Generator]
) -> OpenedSequences:
    """Return all sets of a testbed that `source` names: see `open_sets`."""
    return open_sets(
        Sources(*(getattr(source, name) for name in Sources._fields)), source, tokenizer, bounds, generator
    )


def open_sets(
    sources: Sources,
    reading: SequenceSettings,
    tokenizer: Any,
    bounds: Bounds,
    generator: Callable[[str], torch.Generator],
) -> OpenedSequences:
    """Return all sets of a testbed.

    Repeated rows are dropped; texts that are near-duplicates of memorized rows are dropped too (or refused where they
    are equal and near-duplicates are kept), and whole families of near-duplicates go to one side of each split.

    Args:
        sources: what to read.
        reading: how to read it.
        tokenizer: the model's; none if all rows are token ids.
        bounds: the model's vocabulary and context, and the id that fills rows.
        generator: gives a fresh random generator for each label.

    Raises:
        DataError: a source or a row that cannot be used, by source and row; or a set of which nothing is left.
    """
    return _Opening(sources, reading, tokenizer, bounds, generator).open()


class _Opening:
    def __init__(
        self,
        sources: Sources,
        reading: SequenceSettings,
        tokenizer: Any,
        bounds: Bounds,
        generator: Callable[[str], torch.Generator],
    ) -> None:
        self.sources, self.reading, self.bounds, self.generator = sources, reading, bounds, generator
        self.tokenization = Tokenization.of(tokenizer, bounds, special_tokens=reading.special_tokens)
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
            facts=self._facts(memorized | texts),
        )

    def _facts(self, sets: dict[str, RowSet]) -> dict[str, Any]:
        return {
            "rows": {name: len(rows) for name, rows in sets.items()},
            "dropped": {name: dict(rows.dropped) for name, rows in sets.items() if rows.dropped},
            "kinds": {name: rows.kind for name, rows in sets.items() if rows.kind},
            "special_tokens": self.tokenization.in_words(),
            "notes": [note for rows in sets.values() for note in rows.notes],
        }

    def _memorized(self) -> tuple[dict[str, RowSet], Lengths]:
        """Return `forget`, and `forget_unseen` where there is one, and the lengths of the extraction check."""
        reading, unseen = self.reading, self.sources.forget_unseen
        forget = self._read_memorized(self.sources.forget, "forget")
        given = (reading.prompt, reading.suffix, self.bounds.context)
        lengths = choose_lengths(forget, *given, short=reading.short_rows)
        forget = self._fit(forget, lengths)
        share = _share(unseen, "forget_unseen")
        if share is None:
            others = self._fit(self._read_memorized(unseen, "forget_unseen"), lengths)
            return {"forget": forget, "forget_unseen": self._apart(others, [forget], "forget")}, lengths
        if not share:
            return {"forget": forget}, lengths
        split = split_off(forget, share, "forget_unseen", self.generator("forget_unseen"))
        return {"forget": forget.but(split.kept.rows), "forget_unseen": split.taken}, lengths

    def _read_memorized(self, source: object, setting: str) -> RowSet:
        most = self.reading.max_rows
        rows = read_rows(source, setting, self.tokenization, most=most, generator=self.generator(setting))
        return rows if self.reading.marked == "keep" else without_marked(rows)

    def _fit(self, rows: RowSet, lengths: Lengths) -> RowSet:
        reading = self.reading
        return without_repeats(
            fit(rows, lengths, self.bounds.context, short=reading.short_rows, long=reading.long_rows)
        )

    def _texts(self, memorized: list[RowSet]) -> dict[str, RowSet]:
        """Return `retain` and the hold-outs, each without what stands in the sets before it."""
        sources, made = self.sources, dict[str, RowSet]()
        if sources.retain is not None:
            retain = self._apart(self._text(sources.retain, "retain"), memorized, "forget")
            if share := _share(sources.holdout, "holdout"):
                split = split_off(retain, share, "holdout", self.generator("holdout"))
                made["retain"], made["text"] = retain.but(split.kept.rows), split.taken
            else:
                made["retain"] = retain
            made = {name: self._some(rows, name) for name, rows in made.items()}
        shown = [*memorized, *([made["retain"]] if "retain" in made else [])]
        for name, setting in (("text", "holdout"), ("general", "general")):
            place = getattr(sources, setting)
            if _share(place, setting) is None:
                rows = self._apart(self._text(place, setting), shown, "forget or retain")
                made[name] = self._some(rows, setting)
        return made

    def _text(self, source: object, setting: str) -> RowSet:
        length, pool = self._text_length(), _POOL * self.reading.text_rows
        if is_corpus(source):
            return without_repeats(corpus_rows(source, setting, self.tokenization, length, pool))
        read = read_rows(source, setting, self.tokenization, most=pool, generator=self.generator(setting))
        return without_repeats(pieces(read, length))

    def _text_length(self) -> int:
        length, context = self.reading.text_length, self.bounds.context
        if length is None:
            return min(_TEXT_LENGTH, context or _TEXT_LENGTH)
        if context is not None and length > context:
            raise DataError(
                f"text_length = {length}, and the model reads at most {context} tokens",
                expected=f"rows of at most {context} tokens",
                fix=f"set text_length = {context}",
            )
        return length

    def _apart(self, rows: RowSet, others: list[RowSet], name: str) -> RowSet:
        if self.reading.near_duplicates == "drop":
            return without_near_duplicates_of(rows, others, name)
        check_disjoint(rows, others, name)
        return rows

    def _some(self, rows: RowSet, setting: str) -> RowSet:
        import torch

        most = self.reading.text_rows
        if len(rows) <= most:
            return rows
        drawn = torch.randperm(len(rows), generator=self.generator(f"rows of {setting}"))[:most]
        return rows.keep(sorted(drawn.tolist()), "not drawn")

    def _sequences(self, rows: RowSet, lengths: Lengths) -> Sequences:
        made = as_sequences(rows, lengths, pad_id=self.bounds.pad_id, first_id=self._next_id)
        self._next_id += len(made)
        return made


def _share(source: object, setting: str) -> float | None:
    """Return the share of another set that is meant, 0 for none; none where `source` is a source of its own.

    Raises:
        DataError: a number that is no share.
    """
    if source is None:
        return 0.0
    if not isinstance(source, (int, float)) or isinstance(source, bool):
        return None
    if not 0 <= source < 1:
        raise DataError(
            f"{setting} = {source!r} is no share of a set",
            expected="a share from 0 up to 1, exclusive, as 0.25; or sequences of their own",
            fix="give e.g. 0.25",
        )
    return float(source)


def is_corpus(source: object) -> bool:
    """Whether `source` is a corpus of texts, or the name of one, and not rows of sequences."""
    if isinstance(source, (str, Path)):
        return not str(source).startswith(HUB) and not is_row_file(str(source))
    return isinstance(source, Corpus)


def corpus_rows(source: object, setting: str, tokenization: Tokenization, length: int, most: int) -> RowSet:
    """Return the first `most` rows of `length` tokens of a corpus, its documents one after another.

    What stands before every text stands before each row. A few consecutive rows that begin in one document are one
    family.

    Raises:
        DataError: there is no such corpus, no tokenizer, or less text than one row.
    """
    check_is_place(source, setting)
    named = isinstance(source, (str, Path))
    name = f"{setting} = {str(source)!r}" if named else setting
    corpus = source if isinstance(source, Corpus) else open_corpus(str(source), setting=setting)
    rows = list(islice(_stream(corpus, name, tokenization, length), most))
    if not rows:
        raise DataError(
            f"{name} has too little text for one row of {length} tokens",
            expected="more text, or shorter rows",
            fix="name a larger corpus, or lower text_length",
        )
    return RowSet(name, rows, kind=str(source) if named else "a corpus")


def _stream(corpus: Corpus, name: str, tokenization: Tokenization, length: int) -> Iterator[Row]:
    """Yield rows of exactly `length` tokens; two line breaks stand between documents."""
    waiting: list[int] = []
    source, begun = "", Counter[str]()
    for document in corpus.named():
        if not waiting:
            source = document.source
        where = f"{name}, document {document.source!r}"
        waiting += tokenization.body(document.text.rstrip("\n") + "\n\n", where)
        start, step = 0, max(1, length - len(tokenization.leading))
        while len(waiting) - start >= step:
            group = f"{source} {begun[source] // STRETCH}"
            begun[source] += 1
            tokens = [*tokenization.leading, *waiting[start : start + step]]
            yield Row(tokens, group=group, where=f"{name}, document {source!r}", leading=len(tokenization.leading))
            start, source = start + step, document.source
        waiting = waiting[start:]
