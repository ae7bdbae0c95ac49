"""Texts are found, read and hashed, or refused with what to do."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import polars as pl
import pytest

from unmemorize.data.corpora import open_corpus
from unmemorize.data.wiki_markup import plain
from unmemorize.errors import DataError
from unmemorize.search.config import SEARCHED

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
    assert "name a local file or folder" in error.value.fix
    assert corpus.digest().startswith("hf://")


def test_wikitext_is_its_table_on_the_hub() -> None:
    assert open_corpus("wikitext-103").digest().startswith("hf://datasets/Salesforce/wikitext/wikitext-103-raw-v1/")


def test_rows_of_a_file_in_a_folder_are_documents_and_other_json_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\\ntwo"}\n"three"\n', encoding="utf-8-sig")
    (tmp_path / "b.jsonl").write_text('{"level": "info"}\n', encoding="utf-8")
    found = open_corpus(str(tmp_path), include=["*.jsonl"]).named()
    assert [(document.source, document.text) for document in found] == [
        ("a.jsonl#1", "one\ntwo"), ("a.jsonl#2", "three"), ("b.jsonl", '{"level": "info"}\n'),
    ]  # fmt: skip


def test_rows_of_ids_in_a_folder_are_refused_and_never_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n[3, 4]\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl', line 2: the row is no text") as error:
        list(open_corpus(str(tmp_path)).named())
    assert "name the file itself, a.jsonl" in error.value.fix


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.tsv", "a.CSV", "a.json.gz"])
def test_tables_and_json_are_no_running_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text\none two\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"texts = .* is a file {Path(name).suffix}") as error:
        open_corpus(str(tmp_path / name), setting="texts", include=SEARCHED)
    assert "*.jsonl" in error.value.fix
    if not name.endswith("gz"):
        with pytest.raises(DataError, match="holds no text"):
            open_corpus(str(tmp_path), include=SEARCHED)


def test_documents_say_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.md").write_text("third", encoding="utf-8")
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(DUMP.encode()))
    pl.DataFrame({"text": ["", "row"]}).write_parquet(tmp_path / "t.parquet")
    sources = [document.source for document in open_corpus(str(tmp_path)).named()]
    assert sources == ["deep/c.md", "dump.xml.bz2#0", "t.parquet#1"]
    assert [document.source for document in open_corpus(str(tmp_path / "deep" / "c.md")).named()] == ["c.md"]
    assert next(open_corpus("python-docs").named()).source == "assert"


def test_patterns_choose_files_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("LICENSE", "a.py", "a.txt", "docs/b.txt"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    chosen = open_corpus(str(tmp_path), include=["*.py", "LICENSE*", "docs/*.txt"])
    assert list(chosen.documents()) == ["LICENSE", "a.py", "docs/b.txt"]
    with pytest.raises(DataError, match="the folder holds no text") as error:
        open_corpus(str(tmp_path), setting="texts", include=["*.c"])
    assert "at least one file that matches *.c" in error.value.expected


def test_bytes_that_are_no_text_are_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("caf\xe9 noir".encode("latin1"))
    assert list(open_corpus(str(tmp_path), lenient=True).documents()) == ["caf\ufffd noir"]


def test_licences_of_installed_packages_are_a_corpus() -> None:
    corpus = open_corpus("licences")
    documents = list(corpus.named())
    assert len(documents) > 5
    assert all(".dist-info/" in document.source for document in documents)
    assert any("WITHOUT WARRANT" in document.text for document in documents)
    assert [document.source for document in documents] == sorted(document.source for document in documents)
    assert corpus.digest() == open_corpus("licences").digest()


def test_without_licence_files_the_corpus_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", list)
    with pytest.raises(DataError, match="no installed package brings a licence file") as error:
        open_corpus("licences", setting="texts")
    assert "set texts to" in error.value.fix
