from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import toy_tokenizer

from unmemorize import DataError, Window
from unmemorize.data.sets import OpenedSequences, corpus_rows, open_sequences
from unmemorize.data.tokenization import Tokenization
from unmemorize.toolkit import Bounds, SequenceSource, sequences_fingerprint

Write = Callable[..., str]


def random_rows(count: int, length: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, 1000, (count, length), generator=generator).tolist()


def opened(seed: int = 0, tokenizer: Any = None, **settings: Any) -> OpenedSequences:
    def generator(label: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed * 1000 + sum(map(ord, label)))

    return open_sequences(SequenceSource(**settings), tokenizer, Bounds(1000, 256, 0), generator)


@pytest.fixture
def files(jsonl: Write) -> dict[str, str]:
    return {
        "forget": jsonl(random_rows(20, 64, 0), "forget.jsonl"),
        "retain": jsonl(random_rows(40, 100, 1), "retain.jsonl"),
        "general": jsonl(random_rows(10, 100, 2), "general.jsonl"),
    }


def test_every_set_has_its_rows_and_its_ids(files: dict[str, str]) -> None:
    sets = opened(**files, forget_unseen=0.25, text_length=50)
    counts = {
        "forget": 15, "forget_unseen": 5, "retain": 60, "text": 20, "general": 20,
    }  # fmt: skip
    assert sets.facts["rows"] == counts
    assert sets.facts["dropped"] == {}
    assert sets.window == Window(32, 32)
    assert sets.forget_unseen is not None
    assert sets.retain is not None
    parts = [sets.forget, sets.forget_unseen, sets.retain, *sets.holdouts.values()]
    assert [len(part) for part in parts] == list(counts.values())
    assert torch.cat([part.ids for part in parts]).tolist() == list(range(120))
    assert set(sets.holdouts) == {"text", "general"}


def test_the_seed_decides_the_splits_and_nothing_else(files: dict[str, str]) -> None:
    def forget(seed: int) -> set[tuple[int, ...]]:
        return set(map(tuple, opened(seed, **files, forget_unseen=0.25).forget.tokens.tolist()))

    assert forget(0) == forget(0)
    assert forget(0) != forget(1)


def test_consecutive_pieces_of_a_text_stay_together(files: dict[str, str]) -> None:
    sets = opened(**files, text_length=10)
    assert sets.retain is not None
    retained, held = ({tuple(row) for row in part.tokens.tolist()} for part in (sets.retain, sets.holdouts["text"]))
    assert retained
    assert held
    for text in random_rows(40, 100, 1):
        for first in (0, 40, 80):
            own = {tuple(text[start : start + 10]) for start in range(first, min(100, first + 40), 10)}
            assert not (own & retained and own & held)


def test_a_retained_text_that_quotes_a_memorized_row_is_left_out(jsonl: Write, files: dict[str, str]) -> None:
    texts = random_rows(8, 100, 5)
    texts[3][20:84] = random_rows(20, 64, 0)[7]
    sets = opened(**files | {"retain": jsonl(texts, "quoting.jsonl")}, holdout=0, text_length=100)
    assert sets.facts["rows"]["retain"] == 7
    assert sets.facts["dropped"]["retain"] == {"near-duplicates of forget": 1}
    assert "text" not in sets.holdouts


def test_a_holdout_that_quotes_the_retain_set_is_left_out(jsonl: Write, files: dict[str, str]) -> None:
    held = [*random_rows(3, 100, 6), random_rows(40, 100, 1)[5]]
    sets = opened(**files, holdout=jsonl(held, "held.jsonl"), text_rows=256)
    assert sets.facts["rows"]["text"] == 3
    assert sets.facts["dropped"]["text"] == {"near-duplicates of forget or retain": 1}


def test_near_duplicates_can_be_kept(jsonl: Write, files: dict[str, str]) -> None:
    texts = random_rows(8, 100, 5)
    texts[3][20:84] = random_rows(20, 64, 0)[7]
    retain = jsonl(texts, "quoting.jsonl")
    sets = opened(**files | {"retain": retain}, holdout=0, text_length=100, near_duplicates="keep")
    assert sets.facts["rows"]["retain"] == 8


def test_unseen_rows_from_a_file_lose_those_like_the_forget_set(jsonl: Write, files: dict[str, str]) -> None:
    unseen = [*random_rows(3, 64, 7), random_rows(20, 64, 0)[2]]
    sets = opened(**files, forget_unseen=jsonl(unseen, "unseen.jsonl"))
    assert sets.facts["rows"]["forget_unseen"] == 3
    assert sets.facts["rows"]["forget"] == 20


def test_bounds_on_rows(files: dict[str, str]) -> None:
    sets = opened(**files, max_rows=5, text_rows=7)
    assert sets.facts["rows"] == {"forget": 5, "retain": 7, "text": 7, "general": 7}
    assert sets.facts["dropped"]["forget"] == {"not drawn": 15}


def test_counterparts_become_the_clean_set(jsonl: Write, files: dict[str, str]) -> None:
    rows, clean = random_rows(4, 64, 0), random_rows(4, 60, 9)
    place = jsonl([{"tokens": row, "clean_tokens": other} for row, other in zip(rows, clean, strict=True)])
    sets = opened(**files | {"forget": place})
    assert sets.clean is not None
    assert [row[:60] for row in sets.clean.tokens.tolist()] == clean
    assert sets.clean.clean_tokens is None


def test_texts_shorter_than_the_prompt_are_whole_sequences(jsonl: Write, files: dict[str, str]) -> None:
    sets = opened(**files | {"retain": jsonl([[5, 6, 7], [8, 9], [10, 11, 12, 13]], "short.jsonl")}, holdout=0)
    assert sets.retain is not None
    assert sets.retain.suffix_starts.tolist() == [2, 1, 3]


def test_documents_of_a_corpus_are_joined_and_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w2 w3 w4")
    (tmp_path / "b.txt").write_text("w5 w6 w7 w8 w9")
    (tmp_path / "c.txt").write_text("w10")
    rows = corpus_rows(str(tmp_path), "retain", Tokenization(toy_tokenizer()), 4, 10)
    assert [row.tokens for row in rows.rows] == [[2, 3, 4, 5], [6, 7, 8, 9]]
    assert [row.group for row in rows.rows] == ["a.txt 0", "b.txt 0"]
    assert len(corpus_rows(str(tmp_path), "retain", Tokenization(toy_tokenizer()), 2, 3)) == 3


def test_the_fingerprint_follows_the_contents(files: dict[str, str]) -> None:
    source = SequenceSource(**files, holdout="python-docs")
    first = sequences_fingerprint(source)
    assert set(first) == {"forget", "retain", "general", "holdout", "drawing"}
    Path(files["retain"]).write_text("[1, 2]\n")
    second = sequences_fingerprint(source)
    assert {name for name in first if first[name] != second[name]} == {"retain"}
    hub = SequenceSource(forget="hf://datasets/owner/name/*.parquet", general="python-docs")
    assert sequences_fingerprint(hub)["forget"] == hub.forget


def test_a_shared_error_names_the_setting(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"general = '.*gone\.jsonl'"):
        sequences_fingerprint(SequenceSource(**files | {"general": str(tmp_path / "gone.jsonl")}))
