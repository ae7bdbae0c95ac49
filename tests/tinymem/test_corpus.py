"""Corpora and tokenizers are found, read and hashed, or refused with what to do."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from unmemorize import DataError
from unmemorize_plugins.providers.tinymem.corpus import open_corpus
from unmemorize_plugins.providers.tinymem.tokenization import (
    TRAINED,
    open_tokenizer,
    token_ids,
    tokenizer_digest,
)
from unmemorize_plugins.providers.tinymem.wiki_markup import plain

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">
<page><title>One</title><ns>0</ns>
<revision><text>'''One''' is [[number|a number]].{{cite|x={{y}}}}</text></revision></page>
<page><title>Talk:One</title><ns>1</ns><revision><text>chatter</text></revision></page>
<page><title>Uno</title><ns>0</ns><revision><text>#REDIRECT [[One]]</text></revision></page>
</mediawiki>"""


def test_the_python_documentation_is_there_and_is_english() -> None:
    corpus = open_corpus("python-docs")
    documents = list(corpus.documents())
    assert len(documents) > 60
    assert sum(map(len, documents)) > 300_000
    assert sum(document.count(" the ") for document in documents) > 2000
    assert corpus.digest() == open_corpus("python-docs").digest()


def test_a_folder_is_read_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.rst").write_text("first", encoding="utf-8")
    (tmp_path / "deep" / "c.md.gz").write_bytes(gzip.compress(b"third"))
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    pl.DataFrame({"text": ["fourth", "", None, "fifth"], "n": [1, 2, 3, 4]}).write_parquet(tmp_path / "t.parquet")
    assert list(open_corpus(str(tmp_path)).documents()) == ["first", "second", "third", "fourth", "fifth"]


def test_a_single_file_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("\ufeffDo as you like.", encoding="utf-8")
    assert list(open_corpus(str(tmp_path / "LICENSE")).documents()) == ["Do as you like."]


def test_articles_of_a_dump_come_without_mark_up(tmp_path: Path) -> None:
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(DUMP.encode()))
    assert list(open_corpus(str(tmp_path / "dump.xml.bz2")).documents()) == ["One is a number."]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a<ref name=x>note [[b]]</ref> c<ref name=x/> d", "a c d"),
        ("{| class=t\n|-\n| cell {{t}}\n|}after", "after"),
        ("[[File:x.png|thumb|a [[link]] here]]rest", "rest"),
        ("see [http://x.org the page] and [[Category:Numbers]]", "see the page and"),
        ("== Title ==\n* item\n''it''", "Title\nitem\nit"),
        ("a &amp;ndash; b<!-- no -->", "a – b"),
    ],
)
def test_mark_up_goes_and_words_stay(markup: str, text: str) -> None:
    import html

    assert plain(html.unescape(markup)) == text


def test_a_corpus_inside_a_package_is_found() -> None:
    (document,) = open_corpus("package:unmemorize/errors.py").documents()
    assert "three parts" in document


@pytest.mark.parametrize(
    ("name", "said", "fix"),
    [
        ("package:no_such_package_here/x.txt", "no package 'no_such_package_here'", "pip install no-such-package-here"),
        ("package:unmemorize/nothing.txt", "no file or folder 'nothing.txt'", "correct the path"),
        ("no/such/file.txt", "no file or folder 'file.txt'", "correct the path"),
    ],
)
def test_a_place_that_is_not_there_says_what_to_do(name: str, said: str, fix: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        open_corpus(name)
    assert fix in error.value.fix


def test_a_folder_without_text_and_a_file_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no text"):
        open_corpus(str(tmp_path))
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin1"))
    with pytest.raises(DataError, match=r"latin.txt is not UTF-8 text \(byte 3\)"):
        list(open_corpus(str(tmp_path)).documents())


def test_a_table_without_text_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"words": ["x"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet cannot be read") as error:
        list(open_corpus(str(tmp_path)).documents())
    assert "column 'text'" in error.value.expected


def test_a_hub_that_cannot_be_read_says_so() -> None:
    corpus = open_corpus("hf://datasets/nobody-of-that-name/nothing-of-that-name/train-*.parquet")
    with pytest.raises(DataError, match="cannot be read from the hub") as error:
        list(corpus.documents())
    assert "set corpus to a local file or folder" in error.value.fix
    assert corpus.digest().startswith("hf://")


def test_wikitext_is_its_table_on_the_hub() -> None:
    assert open_corpus("wikitext-103").digest().startswith("hf://datasets/Salesforce/wikitext/wikitext-103-raw-v1/")


def test_a_trained_tokenizer_is_lossless_and_the_same_each_time() -> None:
    documents = ["the cat sees the dog\n", "le chat voit le chien — naïve ☃"] * 20
    first, second = (open_tokenizer(TRAINED, documents, 280) for _ in range(2))
    assert first.to_str() == second.to_str()
    assert first.get_vocab_size() == 280
    assert (
        first.decode(token_ids(first, documents[:2], None).tolist())
        == "the cat sees the dog\n\n" + documents[1] + "\n\n"
    )
    assert token_ids(first, documents, 7).tolist() == token_ids(first, documents, None)[:7].tolist()


def test_tokenizer_files_are_read_in_every_form(tmp_path: Path) -> None:
    trained = open_tokenizer(TRAINED, ["the cat sees the dog"] * 9, 300)
    expected = trained.encode("the cat").ids
    trained.save(str(tmp_path / "tokenizer.json"))
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        folder = tmp_path / names[0]
        folder.mkdir()
        model = json.loads(trained.to_str())["model"]
        (folder / names[0]).write_text(json.dumps(model["vocab"]), encoding="utf-8")
        merges = "\n".join(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        (folder / names[1]).write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
        assert open_tokenizer(str(folder), [], 0).encode("the cat").ids == expected
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert open_tokenizer(str(place), [], 0).encode("the cat").ids == expected
    assert tokenizer_digest(str(tmp_path)) == tokenizer_digest(str(tmp_path / "tokenizer.json"))
    assert tokenizer_digest(TRAINED) == TRAINED


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder holds no tokenizer"):
        open_tokenizer(str(tmp_path), [], 0)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"tokenizer.json cannot be read"):
        open_tokenizer(str(tmp_path), [], 0)
