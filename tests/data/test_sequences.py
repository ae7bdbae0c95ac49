from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from model_folders import toy_tokenizer

from unmemorize import Sequences, Window
from unmemorize.data.reader import open_rows
from unmemorize.data.sequences import (
    RowSet,
    as_sequences,
    choose_lengths,
    fit,
    pieces,
    read_rows,
    without_repeats,
)
from unmemorize.data.tokenization import Tokenization

Write = Callable[..., str]


class SequenceSet(NamedTuple):
    """What became of a source."""

    sequences: Sequences
    window: Window
    dropped: dict[str, int]


def read_sequences(
    place: str, *, tokenizer: Any = None, vocabulary: int | None = None, context: int | None = None,
    lengths: tuple[int | None, int | None] = (None, None), short: Any = "refuse", long: Any = "refuse",
) -> SequenceSet:  # fmt: skip
    rows = read_rows(place, "forget", Tokenization(tokenizer, vocabulary))
    chosen = choose_lengths(rows, *lengths, context)
    rows = without_repeats(fit(rows, chosen, context, short=short, long=long))
    return SequenceSet(as_sequences(rows, chosen), chosen.window, dict(rows.dropped))


ROWS = [[3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14], [15, 16, 17, 18, 19, 20]]


def rows_of(sequences: Sequences) -> list[list[int]]:
    lengths = sequences.lengths.tolist()
    return [row[:length] for row, length in zip(sequences.tokens.tolist(), lengths, strict=True)]


def as_text(row: list[int]) -> str:
    return " ".join(f"w{token}" for token in row)


def write_rows(path: Path) -> Path:
    """Write `ROWS` in the format that the suffix says."""
    if path.suffix == ".npy":
        np.save(path, np.array(ROWS, dtype=np.uint16))
    elif path.suffix == ".pt":
        torch.save(torch.tensor(ROWS, dtype=torch.int32), path)
    elif path.suffix == ".parquet":
        pl.DataFrame({"index": [5, 6, 7], "tokens": ROWS, "__index_level_0__": [5, 6, 7]}).write_parquet(path)
    elif path.suffix == ".txt":
        path.write_text("\n\n".join(map(as_text, ROWS)))
    else:
        path.write_text("\n".join(f'{{"tokens": {row}}}' for row in ROWS))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".npy", ".pt", ".txt"])
def test_every_format_gives_the_same_sequences(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"rows{suffix}")
    made, window, dropped = read_sequences(str(path), tokenizer=toy_tokenizer(), vocabulary=29, lengths=(2, None))
    assert rows_of(made) == ROWS
    assert made.suffix_starts.tolist() == [2, 2, 2]
    assert made.ids.tolist() == [0, 1, 2]
    assert window == Window(2, 4)
    assert dropped == {}


def test_a_list_of_rows_in_a_torch_file_may_be_ragged(tmp_path: Path) -> None:
    path = tmp_path / "rows.pt"
    torch.save([[3, 4, 5], torch.tensor([6, 7, 8, 9])], path)
    assert rows_of(read_sequences(str(path), lengths=(1, 2)).sequences) == [[3, 4, 5], [6, 7, 8, 9]]


def test_parquet_may_hold_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"text": [as_text(row) for row in ROWS]}).write_parquet(path)
    assert rows_of(read_sequences(str(path), tokenizer=toy_tokenizer(), lengths=(2, 4)).sequences) == ROWS


def test_parquet_files_are_joined_by_stars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1):
        pl.DataFrame({"tokens": [ROWS[number]]}).write_parquet(tmp_path / f"split-0000{number}-of-2.parquet")
    scan = pl.scan_parquet

    def local(path: str, **more: Any) -> Any:
        return scan(str(path).replace("hf://datasets/owner/name", str(tmp_path)), **more)

    monkeypatch.setattr(pl, "scan_parquet", local)
    made = read_sequences("hf://datasets/owner/name/split-*.parquet", lengths=(2, 4)).sequences
    assert rows_of(made) == ROWS[:2]


def test_a_json_line_is_an_object_a_list_or_a_text(jsonl: Write) -> None:
    place = jsonl([{"tokens": ROWS[0], "source": "x"}, ROWS[1], {"text": as_text(ROWS[2])}])
    assert rows_of(read_sequences(place, tokenizer=toy_tokenizer(), lengths=(2, 4)).sequences) == ROWS


def test_ids_win_over_text(jsonl: Write) -> None:
    place = jsonl([{"tokens": ROWS[0], "text": "w1 w2 w3 w4 w5 w6"}])
    assert rows_of(read_sequences(place, lengths=(2, 4)).sequences) == ROWS[:1]


def test_a_text_may_hold_other_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "w3 w4\u2028w5 w6"}\n', encoding="utf-8")
    assert rows_of(read_sequences(str(path), tokenizer=toy_tokenizer(), lengths=(2, 2)).sequences) == [[3, 4, 5, 6]]


def test_pairs_of_texts_keep_their_border(jsonl: Write) -> None:
    place = jsonl([{"prompt": "w3 w4 ", "suffix": "w5"}, {"prompt": [6], "suffix": [7, 8, 9]}])
    made, window, _ = read_sequences(place, tokenizer=toy_tokenizer())
    assert rows_of(made) == [[3, 4, 5], [6, 7, 8, 9]]
    assert made.anchored
    assert made.suffix_starts.tolist() == [2, 1]
    assert window == Window(1, 3)


def test_rows_that_name_one_prompt_length_give_the_window(jsonl: Write) -> None:
    place = jsonl([{"tokens": row, "prompt": 4, "prompt_text": "..."} for row in ROWS])
    made, window, _ = read_sequences(place)
    assert window == Window(4, 2)
    assert not made.anchored
    assert read_sequences(place, lengths=(3, None)).window == Window(3, 3)  # the user's word counts


@pytest.mark.parametrize(
    ("lengths", "prompt", "suffix", "window"),
    [
        ([64, 64], None, None, (32, 32)),
        ([80, 80], None, None, (32, 32)),
        ([80, 80], None, 40, (32, 40)),
        ([80, 90], None, None, (32, 32)),
        ([61, 310], None, None, (32, 29)),
        ([47, 61], None, None, (23, 24)),
        ([61, 90], 20, None, (20, 32)),
        ([40, 90], None, 32, (8, 32)),
        ([10, 10], 4, None, (4, 6)),
        ([10, 10], 12, None, (12, 1)),  # refused later: too short
    ],
)
def test_the_window(lengths: list[int], prompt: int | None, suffix: int | None, window: tuple[int, int]) -> None:
    from unmemorize.data.row import Row

    rows = RowSet("x", [Row([3] * length) for length in lengths])
    assert tuple(choose_lengths(rows, prompt, suffix).window) == window


def test_copies_groups_and_counterparts_are_kept(jsonl: Write) -> None:
    place = jsonl([{"tokens": row, "copies": 10, "clean_tokens": row[::-1], "group": 7} for row in ROWS])
    made = read_sequences(place, lengths=(2, 4)).sequences
    assert made.copies.tolist() == [10, 10, 10]
    assert rows_of(made.counterparts()) == [row[::-1] for row in ROWS]
    assert [row.group for row in read_rows(place, "forget", Tokenization()).rows] == ["7", "7", "7"]


def test_repeated_rows_are_left_out_and_counted(jsonl: Write) -> None:
    made = read_sequences(jsonl([ROWS[0], ROWS[1], ROWS[0]]), lengths=(2, 4))
    assert rows_of(made.sequences) == ROWS[:2]
    assert made.dropped == {"repeated": 1}


@pytest.mark.parametrize(("long", "expected"), [("cut", [[3, 4, 5, 6], [9, 10, 11]]), ("drop", [[9, 10, 11]])])
def test_long_rows(long: Any, expected: list[list[int]], jsonl: Write) -> None:
    made = read_sequences(jsonl([ROWS[0], [9, 10, 11]]), context=4, lengths=(1, 2), long=long)
    assert rows_of(made.sequences) == expected
    assert made.dropped == ({} if long == "cut" else {"longer than the context": 1})


def test_a_cut_pair_without_its_suffix_is_short(jsonl: Write) -> None:
    place = jsonl([{"prompt": [3, 4, 5], "suffix": [6]}, {"prompt": [7], "suffix": [8]}])
    made = read_sequences(place, context=3, long="cut", short="drop")
    assert rows_of(made.sequences) == [[7, 8]]
    assert made.dropped == {"shorter than prompt + suffix": 1}


def test_short_rows_can_be_dropped(jsonl: Write) -> None:
    made = read_sequences(jsonl([ROWS[0], [9, 10]]), lengths=(2, 4), short="drop")
    assert rows_of(made.sequences) == ROWS[:1]
    assert made.dropped == {"shorter than prompt + suffix": 1}


def test_drawn_rows_keep_their_numbers(jsonl: Write) -> None:
    place = jsonl([[number, 1] for number in range(2, 27)])

    def drawn(seed: int) -> RowSet:
        generator = torch.Generator().manual_seed(seed)
        return read_rows(place, "forget", Tokenization(), most=5, generator=generator)

    assert [row.tokens for row in drawn(0).rows] == [row.tokens for row in drawn(0).rows]
    assert [row.tokens for row in drawn(0).rows] != [row.tokens for row in drawn(1).rows]
    for row in drawn(0).rows:
        assert row.where.endswith(f"line {row.tokens[0] - 1}")
    assert drawn(0).dropped == {"not drawn": 20}


def test_a_row_that_is_not_drawn_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[3, 4]\n[5, 6]\nnot json\n")
    assert len(read_rows(str(path), "forget", Tokenization(), most=2)) == 2


def test_consecutive_pieces_of_a_row_are_one_family(jsonl: Write) -> None:
    rows = read_rows(jsonl([list(range(3, 24)), [3]]), "retain", Tokenization())
    cut = pieces(rows, 4)
    assert [row.tokens for row in cut.rows] == [list(range(start, start + 4)) for start in range(3, 23, 4)]
    groups = [row.group for row in cut.rows]
    assert groups[:4] == [groups[0]] * 4
    assert groups[4] != groups[0]


def test_lines_are_counted_from_one_and_rows_from_zero(jsonl: Write, tmp_path: Path) -> None:
    lines = open_rows(jsonl([ROWS[0], ROWS[1]]), "forget")
    assert lines.at(1).endswith("line 2")
    assert open_rows(str(write_rows(tmp_path / "rows.npy")), "forget").at(1).endswith("row 1")
