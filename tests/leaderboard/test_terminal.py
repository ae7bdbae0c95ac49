from __future__ import annotations

import re

import pytest

from unmemorize.leaderboard.board import build_board
from unmemorize.leaderboard.columns import columns
from unmemorize.leaderboard.terminal import fitted, to_text


@pytest.fixture
def board(frame, rich_records):
    return build_board(frame(*rich_records))


@pytest.mark.parametrize("width", [80, 90, 100, 120, 140, 200, 260])
def test_no_line_is_wider_than_the_window(board, width):
    assert max(map(len, to_text(board, width=width).splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 100, 120, 260])
def test_what_a_reader_cannot_do_without_is_always_there(board, width):
    text = to_text(board, width=width)
    for method in ("base", "balanced_subnet", "goldfish", "loss_truncation"):
        assert len(re.findall(rf"^ +[–\d].*\b{method}\b", text, flags=re.MULTILINE)) == 1, method
    assert "-0.994" in text
    assert "0.0" in text
    assert "unmemorize-goldfish 1.2.0" in " ".join(text.split())


def test_wider_windows_show_more(board):
    (table,) = board.tables
    names = [{column.name for column in fitted(columns(table, board.home), width)} for width in (80, 100, 120, 300)]
    assert names[0] < names[1] < names[2] < names[3]
    assert {
        "memorized_before",
        "memorized_after",
        "unseen",
        "utility_after",
        "seconds",
        "memory",
        "stage",
    } <= names[2]
    assert len(names[3]) == len(columns(table, board.home))


def test_codes_are_explained(board):
    text = to_text(board, width=120)
    assert "needs: F forget, R retain, C clean, X extra, T training data." in text
    (letter,) = re.findall(r"^(\w) sees-more: ", text, flags=re.MULTILINE)
    row = next(line for line in text.splitlines() if "balanced_subnet" in line)
    assert row.split()[-1] == letter


def test_a_wide_window_needs_no_codes(board):
    text = to_text(board, width=300)
    assert "forget, retain" in text
    assert "approximate-attribution, collapsed" in text
    assert "needs: F" not in text
    assert re.search(r"^collapsed: utility lost more than 10 %", text, flags=re.MULTILINE)


def test_plain_text_has_no_control_codes_and_no_trailing_blanks(board):
    text = to_text(board)
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "\x1b[" in to_text(board, color=True)


def test_what_failed_or_was_skipped_stands_below(board):
    text = to_text(board)
    assert "failed: greedy (1 cell): greedy diverged: the loss is not finite at step 3\n" in text
    assert "skipped: example_tied_dropout (1 cell): it cannot train <this> testbed & 50_000 more\n" in text


def test_text_in_brackets_is_not_taken_for_markup(frame, base, record):
    failed = record("odd", status="failed", reason="[red]not[/red] [/] a style")
    assert "[red]not[/red] [/] a style" in to_text(build_board(frame(base, failed)))


def test_a_board_without_base_says_so(frame, record):
    assert "The base is not measured yet" in to_text(build_board(frame(record())))
    assert "The base is not measured yet" not in to_text(build_board(frame(record("base"), record())))


def test_a_testbed_without_rows_is_shown_with_its_failures(frame, record):
    text = to_text(build_board(frame(record(status="failed", reason="no model"))))
    assert "Nothing is measured here yet." in text
    assert "failed: durable (1 cell): no model" in text


def test_the_caption_tells_how_rows_were_chosen_and_what_intervals_mean(frame, base, record):
    single = to_text(build_board(frame(base, record())))
    assert "Every method has one configuration" in single
    assert "One seed; intervals are 95 % over sequences." in single
    halves = {"select": 4.0, "report": 5.0}
    cells = [record(method_config={"ratio": r}, seed=s, halves=halves) for r in (1, 2) for s in range(3)]
    chosen = to_text(build_board(frame(*cells, record("once", halves=halves))), width=200)
    assert "best configuration by score on one half of the forget set (select)" in chosen
    assert "Configurations per method: 1 to 2." in chosen
    assert (
        "Means over 1 to 3 seeds; intervals are 95 % over seeds (Student's t); rows with one seed: over seq" in chosen
    )
    assert "Every configuration is shown" in to_text(build_board(frame(*cells), all_configs=True))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_where_every_configuration_is_shown_its_settings_are_too(frame, base, record, width):
    cells = [record(method_config={"ratio": r}, seed=s) for r in (0.001, 0.01) for s in range(2)]
    text = to_text(build_board(frame(base, *cells), all_configs=True), width=width)
    assert "ratio=0.001" in text
    assert "ratio=0.01 " in text


def test_columns_without_content_are_left_out(frame, base, record):
    (table,) = build_board(frame(base, record())).tables
    absent = {"origin", "unseen", "perplexity", "seeds", "configs", "config", "settings", "flags"}
    assert not absent & {column.name for column in columns(table, "unmemorize")}


def test_all_columns_of_the_contract_are_there_when_they_say_something(board):
    (table,) = board.tables
    named = [column.name for column in columns(table, board.home)]
    assert named == [
        "rank", "frontier", "method", "origin", "stage", "needs", "memorized_before",
        "memorized_after", "unseen",
        "utility_before", "utility_after", "perplexity", "seconds", "memory", "edited", "score", "flags",
    ]  # fmt: skip


def test_the_utility_columns_are_named_after_the_metric(board):
    (table,) = board.tables
    assert {c.header for c in columns(table, board.home) if c.name == "utility_after"} == {("accuracy", "after")}


def test_home_methods_need_no_origin_for_another_home(frame, base, record):
    board = build_board(frame(base, record()), home="somewhere-else")
    assert "durable comes from unmemorize 0.1.0." in to_text(board, width=80)
