"""Documents become windows that say where in their text they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from unmemorize.data.corpora import Corpus, Document
from unmemorize.data.documents import RowDocuments
from unmemorize.data.reader import open_rows
from unmemorize.data.tokenization import Tokenization
from unmemorize.search import windows as room
from unmemorize.search.windows import Cut, Extent, extent, tokenized, windows

STORY = "The naïve café costs 3 € — or “more”.\n\n  Two  spaces, a tab\tand 漢字 too.\n" * 3


def byte_level(**settings: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(**settings)
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([STORY], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


class Slow:
    """A tokenizer of characters that does not say where its tokens are."""

    is_fast = False

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(char) for char in text.lower()]}

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(map(chr, ids))


class Pages(Corpus):
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def named(self) -> Iterator[Document]:
        return (Document(f"page {number}", text) for number, text in enumerate(self.texts))

    def digest(self) -> str:
        return "pages"


def rows(source: Any) -> RowDocuments:
    return RowDocuments(open_rows(source, "texts"), Tokenization())


def test_windows_slide_and_never_leave_their_document() -> None:
    documents = list(tokenized(Tokenization(Slow()), Pages("abcdefghij", "xyz", "abcd")))
    found = [(window.document.source, window.start) for window in windows(documents, Cut(2, 2, 3))]
    assert found == [("page 0", 0), ("page 0", 3), ("page 0", 6), ("page 2", 0)]
    assert [chr(token) for token in next(windows(documents, Cut(2, 2, 3))).tokens] == list("abcd")


@pytest.mark.parametrize("cut", [Cut(2, 2, 3), Cut(1, 2, 1), Cut(5, 5, 4), Cut(6, 5, 1), Cut(1, 1, 100)])
def test_the_extent_is_what_there_is(cut: Cut) -> None:
    documents = list(tokenized(Tokenization(Slow()), Pages("abcdefghij", "xyz", "abcd")))
    assert extent(documents, cut) == Extent(
        3, 17, len(list(windows(documents, cut))), ord("z"), sum(len(one.ids) < cut.length for one in documents)
    )
    assert extent([], cut) == Extent(0, 0, 0, -1)


@pytest.mark.parametrize("trim", [True, False])
@pytest.mark.parametrize("piece", [1_000_000, 50])
def test_a_window_is_cut_out_of_its_text(trim: bool, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PIECE", piece)
    tokenizer = byte_level(trim_offsets=trim)
    (document,) = tokenized(Tokenization(tokenizer), rows([STORY]))
    assert tokenizer.decode(document.ids.tolist()) == STORY
    for window in windows([document], Cut(3, 4, 1)):
        text = document.text_of(window.start, window.start + 7)
        offset = document.offset(window.start)
        assert offset is not None
        assert STORY[offset:].startswith(text)
        said = tokenizer.decode(list(window.tokens))
        if trim:  # white space at an end of a piece then belongs to the next token
            text, said = text.strip(), said.strip()
        assert text == said or "\ufffd" in said  # a character of several tokens belongs to the last of them
    parts = [document.text_of(start, min(start + 5, len(document.ids))) for start in range(0, len(document.ids), 5)]
    assert "".join(parts) == STORY


def test_a_long_text_is_tokenized_in_pieces_that_end_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_PIECE", 10)
    seen: list[str] = []
    slow = Slow()
    monkeypatch.setattr(Slow, "__call__", lambda _, text, **__: seen.append(text) or {"input_ids": [*map(ord, text)]})
    (document,) = tokenized(Tokenization(slow, special_tokens=False), Pages("one\ntwo\nthree four five\nsix"))
    assert seen == ["one\ntwo\n", "three four", " five\nsix"]
    assert slow.decode(document.ids.tolist()) == "one\ntwo\nthree four five\nsix"


def test_a_tokenizer_without_offsets_decodes_instead() -> None:
    (lower, upper) = tokenized(Tokenization(Slow()), Pages("abcdef", "Abcdef"))
    assert (lower.text_of(2, 5), lower.offset(2), lower.offset(0)) == ("cde", 2, 0)
    assert (upper.text_of(2, 5), upper.offset(2)) == ("cde", None)  # decoding does not give the text back


@pytest.mark.parametrize(("limit", "sizes"), [(None, [6, 6, 6]), (18, [6, 6, 6]), (8, [6, 2]), (6, [6]), (1, [1])])
def test_only_so_many_tokens_are_read(limit: int | None, sizes: list[int]) -> None:
    documents = list(tokenized(Tokenization(Slow()), Pages("abcdef", "ghijkl", "mnopqr"), limit))
    assert [len(document.ids) for document in documents] == sizes
    fast = list(tokenized(Tokenization(byte_level(trim_offsets=False)), Pages("abcdef", "ghijkl"), limit))
    assert all(document.ends is not None and len(document.ends) == len(document.ids) for document in fast)


def test_what_the_tokenizer_puts_before_a_text_stands_in_front_of_every_window() -> None:
    tokenizer = byte_level(trim_offsets=False)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", first), ("</s>", last)]
    )
    assert [tokenizer("or")["input_ids"][at] for at in (0, -1)] == [first, last]
    plain = tokenizer("or more of it", add_special_tokens=False)["input_ids"]
    texts = rows(["or more of it", "<s>or more of it", "or"])
    documents = list(tokenized(Tokenization(tokenizer), texts))
    assert documents[0].ids.tolist() == documents[1].ids.tolist() == plain  # what is written is not put there twice
    found = [window.tokens for window in windows(documents[:1], Cut(3, 2, 1))]
    assert found == [(first, *plain[start : start + 4]) for start in range(len(plain) - 3)]
    assert extent(documents, Cut(3, 2, 1)).windows == 2 * len(found)
    assert extent(documents, Cut(3, 2, 1)).short == 1
    without = tokenized(Tokenization(tokenizer, special_tokens=False), texts)
    assert next(windows(without, Cut(3, 2, 1))).tokens == tuple(plain[:5])


def test_rows_at_hand_are_documents_with_a_hash() -> None:
    assert list(rows(["one", " ", "two", {"tokens": [3, 4]}]).named()) == [
        Document("row 0", "one"), Document("row 2", "two"), Document("row 3", "", (3, 4)),
    ]  # fmt: skip
    digests = {rows(one).digest() for one in (["one", "two"], ["onet", "wo"], ["two", "one"], ["one", "two", ""])}
    assert len(digests) == 4
    assert rows(["one"]).digest() == rows(["one"]).digest()


@pytest.mark.parametrize("make", [lambda: byte_level(trim_offsets=True), Slow], ids=["fast", "slow"])
def test_an_empty_document_has_no_windows(make: Callable[[], Any]) -> None:
    documents = list(tokenized(Tokenization(make()), Pages("")))
    assert extent(documents, Cut(1, 1, 1)) == Extent(1, 0, 0, -1, 1)
