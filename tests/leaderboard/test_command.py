from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from unmemorize.cli.board import command
from unmemorize.errors import ConfigError, DataError, StoreError
from unmemorize.leaderboard.formats import FORMATS
from unmemorize.results.store import Store


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def board(here):
    """Call the command; errors of the user come out as they are."""
    return lambda *arguments: CliRunner().invoke(command, [*arguments], catch_exceptions=False)


def store(folder, *records):
    for each in records:
        Store(Path(folder)).shard().append(each)


def test_without_arguments_every_result_here_is_shown(board, base, record):
    store("unmemorize-results/quick", base, record())
    store("unmemorize-results/other", record(suite="other"))
    done = board()
    assert done.exit_code == 0
    assert "quick / noise" in done.stdout
    assert "other / noise" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_suite_name_stands_for_its_folder(board, base, record):
    store("unmemorize-results/quick", base, record())
    store("unmemorize-results/other", record(suite="other"))
    assert "other / noise" not in board("quick").stdout


def test_any_folder_and_any_folder_of_folders_will_do(board, base, record):
    store("elsewhere/mine", base, record())
    assert "quick / noise" in board("elsewhere/mine").stdout
    assert "quick / noise" in board("elsewhere").stdout


def test_several_folders_become_one_board_with_duplicates_and_disagreements_reported(board, base, record):
    store("one", base, record(memorized=(96.0, 4.0)))
    store("two", base, record(memorized=(96.0, 6.0)), record("greedy"))
    done = board("one", "two")
    assert done.stdout.count("quick / noise") == 1
    assert "greedy" in done.stdout
    assert "note: quick / noise: 2 cells are in one and two; each is shown once" in done.stderr
    assert (
        "disagreement: quick / noise, durable ratio=0.01, seed 0: the same versions, settings, data and seed, other "
        "numbers; those from two are shown\n"
        "  extraction@50+50 after on forget (all): 4 in one, 6 in two\n"
        "  they ran on the same kind of machine and libraries: was code changed without a new version?\n" in done.stderr
    )


def test_a_disagreement_says_in_what_the_machines_differ(board, record):
    for folder, after, torch in (("one", 4.0, "2.9"), ("two", 6.0, "2.13")):
        store(folder, record(memorized=(96.0, after), environment={"python": "3.11", "torch": torch}))
    said = board("one", "two").stderr
    assert "  torch: 2.9 in one, 2.13 in two\n" in said
    assert "python" not in said
    assert "without a new version" not in said


def test_many_disagreements_are_counted(board, record):
    for folder, after in (("one", 4.0), ("two", 6.0)):
        store(folder, *[record(memorized=(96.0, after), seed=seed) for seed in range(25)])
    said = board("one", "two").stderr
    assert said.count("disagreement:") == 20
    assert said.endswith("and 5 more cells that disagree\n")


def test_versions_of_one_package_side_by_side_are_mentioned(board, record, origin):
    store("one", record("mine", method_origin=origin("mine", "unmemorize-mine", "0.1.0")))
    store("two", record("ours", method_origin=origin("ours", "unmemorize-mine", "0.2.0")))
    said = board("one", "two").stderr
    assert "note: records of unmemorize-mine 0.1.0 and 0.2.0 stand on one board" in said
    assert board("one").stderr == ""


@pytest.mark.parametrize("kind", FORMATS)
def test_records_that_are_set_aside_are_counted_and_named(board, base, record, kind):
    store("one", base, record(), record("greedy"))
    last = max(Path("one/records").iterdir())
    last.write_bytes(last.read_bytes().replace(b"4.0", b"2.0", 1))
    done = board("one", "--format", kind, "--output", "board.out")
    said = (
        "1 record was set aside, damaged or impossible: no number stands on it",
        f"one/records/{last.name}, line 1: it is damaged: its digest is that of another text",
    )
    places = [done.stderr]
    if kind in ("terminal", "markdown", "html"):
        places.append(re.sub(r"\\|\n *", " ", Path("board.out").read_text()).replace("\\", ""))
    for line, place in itertools.product(said, places):
        assert " ".join(line.split()) in " ".join(place.split())
    assert "greedy" not in Path("board.out").read_bytes().decode(errors="replace")


def test_a_board_of_nothing_but_damaged_records_says_so(board, here):
    (here / "one").mkdir()
    (here / "one" / "records.jsonl").write_text("rubbish\n")
    with pytest.raises(StoreError, match="there are no records to make a board from: all 1 are damaged"):
        board("one")


def test_the_command_offers_every_format():
    (option,) = (parameter for parameter in command.params if parameter.name == "kind")
    assert tuple(option.type.choices) == FORMATS


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_can_be_written_to_a_file(board, here, base, record, kind):
    store("one", base, record())
    done = board("one", "--format", kind, "--output", "deep/board.out")
    assert done.stdout == ""
    assert "wrote deep/board.out" in done.stderr
    assert b"durable" in (here / "deep/board.out").read_bytes()


@pytest.mark.parametrize(
    ("name", "start"),
    [("b.md", "## quick"), ("b.csv", '"suite",'), ("b.tex", "% needs"), ("b.html", "<!doctype html>")],
)
def test_the_form_follows_the_ending(board, here, base, name, start):
    store("one", base)
    board("one", "--output", name)
    assert (here / name).read_text().startswith(start)


def test_parquet_can_be_piped(board, here, base, record):
    store("one", base, record())
    (here / "piped.parquet").write_bytes(board("one", "--format", "parquet").stdout_bytes)
    assert pl.read_parquet(here / "piped.parquet")["method"].to_list() == ["base", "durable"]


def test_every_configuration_can_be_shown(board, record):
    store("one", *[record(method_config={"ratio": ratio}) for ratio in (1, 2, 3)])
    csv = board("one", "--format", "csv", "--all-configs").stdout
    assert csv.count("durable") == 3
    assert board("one", "--format", "csv").stdout.count("durable") == 1


def test_no_results_at_all_say_how_to_get_some(board):
    with pytest.raises(StoreError) as error:
        board()
    assert error.value.what == "there are no results in ./unmemorize-results"
    assert "unmemorize run quick" in error.value.fix


def test_a_misspelt_suite_names_the_nearest(board, base):
    store("unmemorize-results/tinymem-noise", base)
    with pytest.raises(StoreError) as error:
        board("tinymem-nose")
    assert "neither ./tinymem-nose nor ./unmemorize-results/tinymem-nose holds results" in error.value.what
    assert error.value.fix == "unmemorize board tinymem-noise"


def test_a_suite_not_run_yet_says_how_to_run_it(board):
    with pytest.raises(StoreError) as error:
        board("quick")
    assert error.value.fix == "unmemorize run quick"


def test_an_output_that_cannot_be_written_is_named(board, here, base):
    store("one", base)
    (here / "file").write_text("")
    with pytest.raises(DataError, match=r"file/board\.md cannot be written"):
        board("one", "--output", "file/board.md")


def test_an_ending_that_no_form_has_is_named(board, base):
    store("one", base)
    with pytest.raises(ConfigError, match=r"b\.foo: no form of a board has the ending '\.foo'"):
        board("one", "--output", "b.foo")


def test_an_empty_file_of_records_is_an_error_in_three_parts(board, here):
    (here / "one").mkdir()
    (here / "one" / "records.jsonl").write_text("")
    with pytest.raises(StoreError, match="there are no records to make a board from"):
        board("one")


def test_records_on_disk_are_plain_json_lines(here, base):
    store("one", base)
    (shard,) = Path("one/records").iterdir()
    (line,) = shard.read_text().splitlines()
    assert json.loads(line)["method"] == "base"
