"""What a search has done survives a kill, and is never mixed with another search's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unmemorize.errors import DataError
from unmemorize.search.found import FoundWindow
from unmemorize.search.log import SearchLog

SETTINGS = {"prompt": 2, "suffix": 2, "control": None}


def window(offset: int, **fields: Any) -> FoundWindow:
    given = {"char_offset": 3, "prompt_text": "a “b”", "suffix_text": " c\ud800"} | fields
    return FoundWindow(
        tokens=[offset, 2, 3, 4], prompt=2, suffix=2, source="a.txt", token_offset=offset, logprob=-2.0, margin=0.5,
        copy_share=0.0, distinct=2, **given,
    )  # fmt: skip


def test_a_second_log_goes_on_where_the_first_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "found.jsonl.state"
    log = SearchLog(path, SETTINGS)
    found = window(1, suffix_text=" c", control_extracted=False, control_share=0.5)
    log.add(10, 1.5, [found])
    log.add(5, 0.5, [])
    again = SearchLog(path, SETTINGS)
    assert again.state == log.state
    assert (again.state.windows, again.state.seconds, again.state.found) == (15, 2.0, (found,))


def test_without_a_file_everything_stays_in_memory() -> None:
    log = SearchLog(None, SETTINGS)
    log.add(10, 1.0, [window(1)])
    assert (log.state.windows, len(log.state.found)) == (10, 1)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_torn_line_loses_its_batch_and_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "state"
    log = SearchLog(path, SETTINGS)
    log.add(10, 1.0, [window(1)])
    whole = path.read_bytes()
    log.add(7, 1.0, [window(2)])
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    again = SearchLog(path, SETTINGS)
    assert again.state.windows == 10
    again.add(7, 1.0, [window(2)])
    assert SearchLog(path, SETTINGS).state.windows == 17
    assert [row.token_offset for row in SearchLog(path, SETTINGS).state.found] == [1, 2]


@pytest.mark.faults
@pytest.mark.parametrize("at", range(3, 700, 41))
def test_a_flipped_bit_costs_its_batch_and_those_after_it_and_is_never_believed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "state"
    log = SearchLog(path, SETTINGS)
    for offset in (1, 2):
        log.add(10, 1.0, [window(offset, suffix_text=" c")])
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    if at < content.index(b"\n"):
        with pytest.raises(DataError, match="is not the state of a search"):
            SearchLog(path, SETTINGS)
    else:
        read = SearchLog(path, SETTINGS).state
        assert read.windows == 10 * len(read.found) < 20
        assert read.found == log.state.found[: len(read.found)]


def test_a_header_that_was_torn_starts_afresh_only_where_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"")
    assert SearchLog(path, SETTINGS).state.windows == 0
    path.write_bytes(b'{"find": 1, "sett')
    with pytest.raises(DataError, match="is not the state of a search"):
        SearchLog(path, SETTINGS)


def test_two_processes_at_once_count_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "state"
    one, other = SearchLog(path, SETTINGS), SearchLog(path, SETTINGS)
    for log in (one, other, one):
        log.add(10, 1.0, [window(log.state.windows)])
    assert [row.token_offset for row in SearchLog(path, SETTINGS).state.found] == [0, 10]


def test_another_search_is_refused_with_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "state"
    SearchLog(path, SETTINGS)
    with pytest.raises(DataError, match="suffix = 2; this one has 3") as error:
        SearchLog(path, SETTINGS | {"suffix": 3})
    assert "--fresh" in error.value.fix
    assert "the same model" in error.value.expected


@pytest.mark.parametrize("content", ["hello", "[1]\n", '{"a": 1}\n', '{"find": 99, "settings": {}}\n'])
def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(DataError, match="is not the state of a search") as error:
        SearchLog(path, SETTINGS)
    assert "--out" in error.value.fix
    assert path.read_text() == content


def test_a_folder_in_place_of_the_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read or written") as error:
        SearchLog(tmp_path, SETTINGS)
    assert "--out found.jsonl" in error.value.fix


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "state"
    SearchLog(path, SETTINGS).add(1, 0.1, [window(1)])
    assert SearchLog(path, SETTINGS).state.found[0].suffix_text == " c?"


def test_a_row_is_read_back_as_it_was() -> None:
    found = window(5, control_extracted=True, control_share=0.25)
    row = json.loads(json.dumps(found.to_row()))
    assert FoundWindow.from_row(row) == found
    assert (row["perplexity"], row["text"]) == (2.7183, found.prompt_text + found.suffix_text)
    assert list(row)[:2] == ["tokens", "text"]
    with pytest.raises(DataError, match="has no 'margin'"):
        FoundWindow.from_row({name: value for name, value in row.items() if name != "margin"})
