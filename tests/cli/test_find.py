"""`unmemorize find`: a table, a file, and what to type next."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from unmemorize.cli import find as room
from unmemorize.errors import ConfigError, DataError
from unmemorize.testing.memorizing import memorizing_testbed

Command = Callable[..., Result]
SIZES = ("--prompt", "5", "--suffix", "9", "--stride", "1", "--device", "cpu", "--quiet")


@pytest.fixture
def place(workplace: Path) -> Path:
    """`model/`, which regurgitates 16 rows of numbers, and `texts/`, in which six of them stand among others."""
    testbed = memorizing_testbed("gpt2")
    testbed.model.save_pretrained(workplace / "model")
    testbed.tokenizer.save_pretrained(workplace / "model")
    generator = random.Random(2)
    (workplace / "texts").mkdir()
    for number, row in enumerate(testbed.forget.tokens[:6].tolist()):
        words = [*(generator.randrange(32) for _ in range(10)), *row, *(generator.randrange(32) for _ in range(9))]
        (workplace / "texts" / f"{number}.txt").write_text(" ".join(map(str, words)))
    return workplace


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_regurgitated_is_counted_shown_and_written(run_command: Command, place: Path) -> None:
    result = run_command("find", "model", "texts", *SIZES)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "6 documents, 198 tokens; windows of 5 + 9 tokens, one every 1"
    assert lines[2] == "model regurgitates 6 of 120 windows"
    assert lines[3].split() == ["regurgitated", "not", "overlapping", "no", "near-duplicates", "families"]
    assert lines[4].split() == ["all", "6", "6", "6", "6"]
    assert lines[5].split() == ["not", "trivial", "6", "6", "6", "6"]
    found = rows(place / "found.jsonl")
    assert [row["source"] for row in found] == [f"{number}.txt" for number in range(6)]
    shown = [line.split(maxsplit=1)[1] for line in lines if line.startswith("  shown:")]
    assert shown == [str(row["prompt_text"]).strip() for row in found[:3]]
    assert "windows/s. 6 rows in found.jsonl" in lines[-2]
    assert lines[-1] == "Next: unmemorize mitigate model --forget found.jsonl --method METHOD --out FOLDER"


def test_the_same_command_again_checks_nothing(run_command: Command, place: Path) -> None:
    first = run_command("find", "model", "texts", *SIZES).output
    content = (place / "found.jsonl").read_bytes()
    assert run_command("find", "model", "texts", *SIZES).output == first
    assert (place / "found.jsonl").read_bytes() == content


def test_trivial_windows_are_marked_or_left_out(run_command: Command, place: Path) -> None:
    everything = ("find", "model", "texts", "--distinct", "10", *SIZES)
    output = run_command(*everything).output
    assert "Every one of them could have been guessed" in output
    assert "Next" not in output
    assert [row["trivial"] for row in rows(place / "found.jsonl")] == [True] * 6
    assert "0 rows in found.jsonl" in run_command(*everything, "--no-trivial").output
    assert rows(place / "found.jsonl") == []


def test_where_nothing_is_regurgitated_it_says_what_to_try(run_command: Command, place: Path) -> None:
    output = run_command("find", "model", "texts", *SIZES, "--stride", "3").output
    assert "model regurgitates 0 of 42 windows" in output
    assert output.endswith(
        "Nothing is regurgitated. More text, a smaller --stride or a shorter --suffix may show more.\n"
    )
    assert rows(place / "found.jsonl") == []


def test_json_has_the_counts(run_command: Command, place: Path) -> None:
    report = json.loads(run_command("find", "model", "texts", *SIZES, "--json", "--out", "deep/x.jsonl").output)
    assert report["checked"] == 120
    assert report["not_trivial"] == {"extractable": 6, "not_overlapping": 6, "distinct": 6, "families": 6}
    assert report["out"] == "deep/x.jsonl"
    assert (place / "deep" / "x.jsonl").exists()


def test_a_control_is_told(run_command: Command, place: Path) -> None:
    output = run_command("find", "model", "texts", *SIZES, "--control", "model").output
    assert "Of these 6, the control regurgitates 6; it gets 100% of their tokens right." in output


def test_other_settings_need_another_file_or_a_fresh_start(run_command: Command, place: Path) -> None:
    run_command("find", "model", "texts", *SIZES)
    with pytest.raises(DataError, match="belongs to a search with limit_tokens = None; this one has 50"):
        run_command("find", "model", "texts", *SIZES, "--limit-tokens", "50")
    output = run_command("find", "model", "texts", *SIZES, "--limit-tokens", "50", "--fresh").output
    assert "2 documents, 50 tokens" in output


def test_a_file_of_ones_own_is_not_overwritten(run_command: Command, place: Path) -> None:
    (place / "found.jsonl").write_text("mine")
    with pytest.raises(DataError, match=r"found.jsonl exists, and found.jsonl.state") as error:
        run_command("find", "model", "texts", *SIZES)
    assert "--fresh" in error.value.fix
    assert (place / "found.jsonl").read_text() == "mine"
    assert run_command("find", "model", "texts", *SIZES, "--fresh").exit_code == 0
    assert len(rows(place / "found.jsonl")) == 6


def test_files_are_chosen_by_patterns(run_command: Command, place: Path) -> None:
    output = run_command("find", "model", "texts", *SIZES, "--include", "0.*", "--include", "[12].txt").output
    assert output.startswith("3 documents")
    with pytest.raises(DataError, match="the folder holds no text"):
        run_command("find", "model", "texts", *SIZES, "--include", "*.md", "--out", "other.jsonl")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere/model", "texts"), "nowhere/model"),
        (("model", "nowhere"), "texts = 'nowhere': there is no file or folder"),
        (("model", "texts", "--device", "cuda:99"), "cuda:99"),
        (("model", "texts", "--prompt", "40"), "longer than the model's context of 32"),
    ],
)
def test_what_cannot_be_searched_is_an_error_in_three_parts(
    arguments: tuple[str, ...], said: str, run_command: Command, place: Path
) -> None:
    with pytest.raises((DataError, ConfigError)) as error:
        run_command("find", *SIZES, *arguments)
    assert said in error.value.what
    assert error.value.expected
    assert error.value.fix
    assert not (place / "found.jsonl").exists()


@pytest.mark.parametrize("option", ["--prompt=0", "--stride=x", "--dtype=int8", "--copy-share=0", "--batch=0"])
def test_impossible_options_are_usage_errors(option: str, run_command: Command, place: Path) -> None:
    result = run_command("find", "model", "texts", option)
    assert result.exit_code == 2
    assert option.partition("=")[0] in result.output


def test_texts_are_shown_on_one_line_without_control_characters() -> None:
    assert room._line("a\n b\t\x1b[31mred", last=False) == "a b  [31mred"
    assert room._line("x" * 300, last=False) == "x" * 100 + "..."
    assert room._line("x" * 300 + "y", last=True).endswith("xy")
    assert len(room._line("x" * 300, last=True)) == 103
