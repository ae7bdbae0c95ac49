"""Sliding windows over tokenized documents, and where each of them lies in its text."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unmemorize.data.corpora import Corpus, Document

_PIECE = 1_000_000
"""Characters that are tokenized at once: what a tokenizer says about them needs about 100 times their size."""


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
    """A document as token ids. n tokens."""

    source: str
    text: str
    ids: array[int]
    """n ids."""
    ends: array[int] | None
    """n offsets: where in the text each token ends; none where the tokenizer does not say."""
    tokenizer: Any

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
        text: str = self.tokenizer.decode(self.ids[start:stop].tolist(), clean_up_tokenization_spaces=False)
        return text


class DocumentWindow(NamedTuple):
    """A window of a document."""

    document: TokenizedDocument
    start: int
    """The number of its first token."""
    tokens: tuple[int, ...]


class Extent(NamedTuple):
    """How much there is to check."""

    documents: int
    tokens: int
    windows: int
    largest: int
    """The largest token id; -1 where there is no token."""


def tokenized(tokenizer: Any, corpus: Corpus, limit: int | None = None) -> Iterator[TokenizedDocument]:
    """Yield the documents of a corpus as tokens, without special tokens; the first `limit` tokens, if that is given.

    Each document is tokenized as a whole; one of more than a million characters in pieces that end with a line.
    """
    left = limit
    for document in corpus.named():
        if left is not None and left <= 0:
            return
        whole = _tokenize(tokenizer, document)
        if left is not None:
            whole = _beginning(whole, left)
            left -= len(whole.ids)
        yield whole


def windows(documents: Iterable[TokenizedDocument], cut: Cut) -> Iterator[DocumentWindow]:
    """Yield every window that fits into its document, in order; the remainder of a document is in none."""
    for document in documents:
        for start in range(0, len(document.ids) - cut.length + 1, cut.stride):
            yield DocumentWindow(document, start, tuple(document.ids[start : start + cut.length]))


def extent(documents: Iterable[TokenizedDocument], cut: Cut) -> Extent:
    """Count what `windows` would yield."""
    found = Extent(0, 0, 0, -1)
    for document in documents:
        size = len(document.ids)
        found = Extent(
            documents=found.documents + 1,
            tokens=found.tokens + size,
            windows=found.windows + max(0, (size - cut.length) // cut.stride + 1),
            largest=max(found.largest, max(document.ids, default=-1)),
        )
    return found


def _tokenize(tokenizer: Any, document: Document) -> TokenizedDocument:
    ids, ends = array("q"), array("q")
    offsets, begin = bool(getattr(tokenizer, "is_fast", False)), 0
    for piece in _pieces(document.text):
        encoded = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=offsets, verbose=False)
        ids.extend(encoded["input_ids"])
        if offsets:
            ends.extend(begin + end for _, end in encoded["offset_mapping"])
        begin += len(piece)
    return TokenizedDocument(document.source, document.text, ids, ends if offsets else None, tokenizer)


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
    return TokenizedDocument(document.source, document.text, document.ids[:count], ends, document.tokenizer)


class Texts(Corpus):
    """Texts that are at hand, as a corpus: `text 0`, `text 1` and so on."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)

    def named(self) -> Iterator[Document]:
        """Yield the texts that are not blank."""
        for number, text in enumerate(self._texts):
            if text.strip():
                yield Document(f"text {number}", text)

    def digest(self) -> str:
        """Return a hash of all texts."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        for text in self._texts:
            digest.update(f"{len(text)} ".encode() + text.encode("utf-8", "replace"))
        return digest.hexdigest()
