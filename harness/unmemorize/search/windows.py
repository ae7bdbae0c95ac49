"""Sliding windows over tokenized documents, and where each of them lies in its text."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from unmemorize.data.corpora import Corpus, Document
from unmemorize.data.tokenization import Tokenization

_PIECE = 1_000_000
"""Characters that are tokenized at once: a tokenizer's output for them takes about 100 times their size."""


class Cut(NamedTuple):
    """How documents are cut into windows, in tokens."""

    prompt: int = 32
    """Tokens that the model is shown."""
    suffix: int = 32
    """Tokens that must come back."""
    stride: int = 16
    """From the start of one window to the start of the next."""

    @property
    def length(self) -> int:
        """The tokens of a window."""
        return self.prompt + self.suffix


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A document as token ids. n tokens, without what stands before every text."""

    source: str
    text: str
    ids: array[int]
    """n ids."""
    ends: array[int] | None
    """n offsets: where in the text each token ends; none where the tokenizer does not say."""
    tokenizer: Any
    leading: tuple[int, ...] = ()
    """What stands before its text (`<s>`), and so before each of its windows; nothing where it came as ids."""

    def offset(self, token: int) -> int | None:
        """Return where in the text the token of that number begins; none where that cannot be told.

        White space between two tokens belongs to the second one.
        """
        if not token:
            return 0
        if self.ends is not None:
            return self.ends[token - 1]
        before = self._decoded(0, token)
        return len(before) if self.text.startswith(before) else None

    def text_of(self, start: int, stop: int) -> str:
        """Return the text of the tokens from `start` to `stop`."""
        if self.ends is None:
            return self._decoded(start, stop)
        return self.text[self.offset(start) : self.offset(stop)]

    def _decoded(self, start: int, stop: int) -> str:
        if self.tokenizer is None:
            return ""
        text: str = self.tokenizer.decode(self.ids[start:stop].tolist(), clean_up_tokenization_spaces=False)
        return text


class DocumentWindow(NamedTuple):
    """A window of a document."""

    document: TokenizedDocument
    start: int
    """The number of the document's token that comes first in it."""
    tokens: tuple[int, ...]
    """What stands before every text, then tokens of the document."""


class Extent(NamedTuple):
    """How much there is to check."""

    documents: int
    tokens: int
    windows: int
    largest: int
    """The largest token id; -1 where there is no token."""
    short: int = 0
    """Documents that are shorter than a window, so that nothing of them is checked."""


def tokenized(tokenization: Tokenization, corpus: Corpus, limit: int | None = None) -> Iterator[TokenizedDocument]:
    """Yield the documents of a corpus as tokens; the first `limit` tokens, if that is given.

    Each document is tokenized as a whole; one of more than a million characters in pieces that end with a line.
    """
    left = limit
    for document in corpus.named():
        if left is not None and left <= 0:
            return
        whole = _tokenize(tokenization, document)
        if left is not None:
            whole = _beginning(whole, left)
            left -= len(whole.ids)
        yield whole


def windows(documents: Iterable[TokenizedDocument], cut: Cut) -> Iterator[DocumentWindow]:
    """Yield every window that fits into its document, in order; the remainder of a document is in none.

    What stands before every text stands in front of each window, and counts to its prompt.
    """
    for document in documents:
        size = cut.length - len(document.leading)
        for start in range(0, len(document.ids) - size + 1, cut.stride):
            yield DocumentWindow(document, start, (*document.leading, *document.ids[start : start + size]))


def extent(documents: Iterable[TokenizedDocument], cut: Cut) -> Extent:
    """Count what `windows` would yield."""
    found = Extent(0, 0, 0, -1)
    for document in documents:
        size = len(document.ids)
        spare = size + len(document.leading) - cut.length
        found = Extent(
            documents=found.documents + 1,
            tokens=found.tokens + size,
            windows=found.windows + max(0, spare // cut.stride + 1),
            largest=max(found.largest, max(document.ids, default=-1)),
            short=found.short + (spare < 0),
        )
    return found


def _tokenize(tokenization: Tokenization, document: Document) -> TokenizedDocument:
    tokenizer, leading = tokenization.tokenizer, tokenization.leading
    if document.tokens is not None:
        return TokenizedDocument(document.source, "", array("q", document.tokens), None, tokenizer)
    ids, ends = array("q"), array("q")
    offsets, begin = bool(getattr(tokenizer, "is_fast", False)), 0
    for piece in _pieces(document.text):
        encoded = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=offsets, verbose=False)
        ids.extend(encoded["input_ids"])
        if offsets:
            ends.extend(begin + end for _, end in encoded["offset_mapping"])
        begin += len(piece)
    written = tokenization.led_by(ids)
    found = ends[written:] if offsets else None
    return TokenizedDocument(document.source, document.text, ids[written:], found, tokenizer, leading)


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _PIECE:
        line_end = text.rfind("\n", start, start + _PIECE) + 1
        stop = line_end if line_end > start else start + _PIECE
        yield text[start:stop]
        start = stop
    yield text[start:]


def _beginning(document: TokenizedDocument, count: int) -> TokenizedDocument:
    ends = None if document.ends is None else document.ends[:count]
    return replace(document, ids=document.ids[:count], ends=ends)
