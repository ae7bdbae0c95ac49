from __future__ import annotations

import itertools
import subprocess
import sys

import polars as pl
import pytest

from unmemorize.errors import StoreError
from unmemorize.leaderboard.board import COLUMNS, build_board
from unmemorize.leaderboard.captions import caption
from unmemorize.results.lines import encode

FIRST, SECOND = "2025-03-01T12:00:00+00:00", "2025-03-02T12:00:00+00:00"


def by_method(table):
    return {row["method"]: row for row in table.rows.to_dicts()}


@pytest.fixture
def only(frame):
    """The one table of the board of some records."""

    def build(*records, **options):
        (table,) = build_board(frame(*records), **options).tables
        return table

    return build


def test_base_comes_first_and_methods_in_order_of_rank(only, base, record):
    table = only(record("b", (96.0, 50.0)), record("a", (96.0, 90.0)), base, record("c", (96.0, 1.0)))
    assert table.rows["method"].to_list() == ["base", "c", "b", "a"]
    assert table.rows["rank"].to_list() == [None, 1, 2, 3]
    assert table.rows.columns == list(COLUMNS)
    assert (table.title, table.rule, table.has_base) == ("quick / noise", "single", True)


def test_a_row_holds_the_numbers_of_its_record(only, base, record, value):
    perplexity = value("perplexity", "holdout", 1.2, 1.3, kind="utility")
    unseen = value("extraction@50+50", "forget_unseen", 91.0, 12.0, after_low=5.0, after_high=20.0)
    distractors = (
        value("extraction@50+50", "retain", 7.0, 7.0),
        value("extraction@50+50", "forget", 1.0, 1.0, part="copies=10"),
        value("recovered@50+50", "forget", 2.0, 2.0),
        value("accuracy", "holdout:additive_2", 3.0, 3.0, kind="utility"),
        value("forget_perplexity", "forget", 4.0, 4.0),
    )
    table = only(base, record(memorized=(96.0, 4.0, 1.1, 13.5), more=(perplexity, unseen, *distractors)))
    row = by_method(table)["durable"]
    expected = {
        "memorized_before": 96.0, "memorized_after": 4.0, "memorized_low": 1.1, "memorized_high": 13.5,
        "unseen_after": 12.0, "unseen_low": 5.0, "unseen_high": 20.0,
        "utility_before": 94.0, "utility_after": 93.0, "perplexity_after": 1.3, "seconds": 2.0,
        "peak_memory": 2**29, "edited_share": 0.025, "needs": ["forget"], "stage": "unlearn", "seeds": 1,
        "distribution": "unmemorize", "version": "0.1.0", "configs": 1, "rule": "single",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["score"] == pytest.approx((4 - 96) / 96 + 1 / 94)


def test_the_base_is_its_own_before_and_after(only, base):
    bare = [v.model_copy(update={"after": None}) for v in base.values]
    row = by_method(only(base.model_copy(update={"values": bare})))["base"]
    assert (row["memorized_after"], row["utility_after"], row["score"]) == (96.0, 94.0, 0.0)
    assert row["frontier"] is False


def test_seeds_become_a_mean_with_an_interval(only, record):
    table = only(*[record(memorized=(96.0, after, 0.0, 99.0), seed=seed) for seed, after in enumerate([2.0, 4.0, 9.0])])
    row = by_method(table)["durable"]
    values = pl.Series([2.0, 4.0, 9.0])
    half = 4.302652730 * values.std() / 3**0.5
    assert row["seeds"] == 3
    assert row["memorized_after"] == pytest.approx(5.0)
    assert row["memorized_high"] == pytest.approx(5.0 + half)
    assert row["memorized_low"] == 0.0
    assert row["score"] == pytest.approx((5 - 96) / 96 + 1 / 94)
    assert row["score_high"] == pytest.approx(row["score"] + half / 96)
    assert row["score_low"] >= -1.0


def test_one_seed_keeps_the_interval_over_sequences(only, record):
    row = by_method(only(record(memorized=(96.0, 4.0, 1.0, 14.0))))["durable"]
    assert (row["memorized_low"], row["memorized_high"]) == (1.0, 14.0)
    assert row["score_high"] == pytest.approx((14 - 96) / 96 + 1 / 94)


def test_rows_that_intervals_cannot_tell_apart_share_a_rank(only, base, record):
    close = [record(m, (96.0, after, after - 3, after + 3)) for m, after in (("a", 4.0), ("b", 6.0), ("c", 40.0))]
    rows = by_method(only(base, *close))
    assert [rows[m]["rank"] for m in "abc"] == [1, 1, 3]


def grid(record, method, choices, **changes):
    """One configuration per (after on select, after on report)."""
    return [
        record(
            method, (96.0, (select + report) / 2), halves={"select": select, "report": report},
            method_config={"ratio": number}, **changes,
        )
        for number, (select, report) in enumerate(choices)
    ]  # fmt: skip


def test_a_grid_is_chosen_on_one_half_and_reported_on_the_other(only, base, record):
    halves = [*base.values, *record("x", halves={"select": 97.0, "report": 95.0}).values[2:]]
    table = only(
        base.model_copy(update={"values": halves}),
        *grid(record, "durable", [(10.0, 1.0), (2.0, 30.0), (5.0, 5.0)]),
        *grid(record, "greedy", [(50.0, 60.0), (51.0, 0.0), (52.0, 0.0)]),
    )
    rows = by_method(table)
    assert table.rule == "halves"
    assert (rows["durable"]["memorized_after"], rows["durable"]["method_config"]) == (30.0, '{"ratio": 1}')
    assert (rows["greedy"]["memorized_after"], rows["greedy"]["method_config"]) == (60.0, '{"ratio": 0}')
    assert rows["base"]["memorized_after"] == 95.0
    assert rows["durable"]["configs"] == 3
    assert rows["durable"]["flags"] == rows["greedy"]["flags"] == []


def test_a_method_with_one_configuration_beside_a_grid_also_reports_the_half(only, record):
    table = only(*grid(record, "durable", [(10.0, 1.0), (2.0, 30.0)]), *grid(record, "once", [(8.0, 9.0)]))
    rows = by_method(table)
    assert rows["once"]["memorized_after"] == 9.0
    assert rows["once"]["flags"] == []


def test_without_halves_the_whole_set_is_used_and_flagged(only, record):
    rows = by_method(only(*[record(memorized=(96.0, a), method_config={"ratio": a}) for a in (4.0, 2.0)]))
    assert rows["durable"]["memorized_after"] == 2.0
    assert "no-halves" in rows["durable"]["flags"]


def test_a_configuration_is_chosen_by_its_mean_over_seeds(only, record):
    def cell(ratio, seed, after):
        return record(halves={"select": after, "report": after}, method_config={"ratio": ratio}, seed=seed)

    table = only(cell(1, 0, 0.0), cell(1, 1, 40.0), cell(2, 0, 15.0), cell(2, 1, 15.0))
    row = by_method(table)["durable"]
    assert (row["method_config"], row["seeds"]) == ('{"ratio": 2}', 2)


def test_a_collapsed_configuration_is_not_chosen_for_its_low_memorization(only, record):
    good = record(memorized=(96.0, 10.0), method_config={"ratio": 1})
    bad = record(memorized=(96.0, 0.0), utility=(94.0, 5.0), method_config={"ratio": 2})
    assert by_method(only(good, bad))["durable"]["memorized_after"] == 10.0


def test_a_configuration_without_a_score_is_never_chosen(only, record):
    lost = record(memorized=(96.0, None), method_config={"ratio": 1})
    assert by_method(only(lost, record(memorized=(96.0, 95.0))))["durable"]["memorized_after"] == 95.0


def test_equal_scores_go_to_the_cheaper_configuration(only, record):
    dear = record(method_config={"ratio": 1}, total_seconds=9.0)
    cheap = record(method_config={"ratio": 2}, total_seconds=1.0)
    assert by_method(only(dear, cheap))["durable"]["seconds"] == 1.0


def test_every_configuration_can_be_shown(only, base, record):
    table = only(base, *grid(record, "durable", [(10.0, 1.0), (2.0, 30.0), (5.0, 5.0)]), all_configs=True)
    assert table.rule == "every"
    shown = table.rows.filter(pl.col("method") == "durable")
    assert sorted(shown["memorized_after"]) == [5.0, 5.5, 16.0]
    assert {flag for flags in shown["flags"].to_list() for flag in flags} == set()


def test_unequal_grids_are_flagged_but_single_configurations_are_not(only, record):
    table = only(
        *grid(record, "three", [(9.0, 9.0)] * 3),
        *grid(record, "two", [(8.0, 8.0)] * 2),
        *grid(record, "one", [(7.0, 7.0)]),
    )
    flagged = {m: "unequal-grid" in row["flags"] for m, row in by_method(table).items()}
    assert flagged == {"three": True, "two": True, "one": False}


FLAGGED = [
    ("collapsed", {"utility": (94.0, 84.5)}, True),
    ("collapsed", {"utility": (94.0, 84.7)}, False),
    ("worse", {"memorized": (96.0, 96.5)}, True),
    ("worse", {"memorized": (96.0, 96.0)}, False),
    ("base-not-memorized", {"memorized": (19.9, 1.0)}, True),
    ("base-not-memorized", {"memorized": (20.0, 1.0)}, False),
    ("no-number", {"utility": (94.0, None)}, True),
    ("no-number", {"utility": (94.0, 1.0)}, False),
    ("approximate-attribution", {"flags": ["approximate-attribution"]}, True),
    ("their-own", {"flags": ["their-own"]}, True),
]


@pytest.mark.parametrize(("flag", "changes", "raised"), FLAGGED)
def test_flags_follow_their_rules(only, record, flag, changes, raised):
    assert (flag in by_method(only(record(**changes)))["durable"]["flags"]) is raised


@pytest.mark.parametrize(("attacked", "raised"), [(14.0, True), (13.9, False)])
def test_what_returns_under_attack_is_flagged(only, record, value, attacked, raised):
    attack = value("relearning@10", "forget", 97.0, attacked, kind="robustness", part="rest")
    gain = value("robust_accuracy", "forget", 1.0, 99.0, kind="robustness", direction="higher")
    rows = by_method(only(record(memorized=(96.0, 4.0), more=(attack, gain))))
    assert ("returns-under-attack" in rows["durable"]["flags"]) is raised


@pytest.mark.parametrize(("plain", "raised"), [(30.0, False), (29.9, True)])
def test_an_attack_is_held_against_its_own_plain_value(only, record, value, plain, raised):
    attack = value("relearning@10", "forget", 97.0, 39.9, kind="robustness")
    beside = value("relearning@10", "forget", 97.0, plain, kind="robustness", part="plain")
    rows = by_method(only(record(memorized=(96.0, 4.0), more=(attack, beside))))
    assert ("returns-under-attack" in rows["durable"]["flags"]) is raised


def test_a_plain_value_is_no_attack(only, record, value):
    alone = value("relearning@10", "forget", 97.0, 50.0, kind="robustness", part="plain")
    assert by_method(only(record(memorized=(96.0, 4.0), more=(alone,))))["durable"]["flags"] == []


def test_the_base_is_not_blamed_for_an_attack(only, base, value):
    attack = value("relearning@10", "forget", 120.0, 120.0, kind="robustness")
    assert by_method(only(base.model_copy(update={"values": [*base.values, attack]})))["base"]["flags"] == []


def test_a_method_that_sees_what_its_stage_does_not_is_flagged(only, base, record):
    table = only(
        base, record("a"), record("b"), record("c", needs=["forget", "retain"]),
        record("t1", stage="train", needs=["training_data"]), record("f1", stage="finetune", needs=["extra"]),
    )  # fmt: skip
    assert [m for m, row in by_method(table).items() if "sees-more" in row["flags"]] == ["c"]


def test_half_of_the_stage_is_company_enough(only, record):
    table = only(record("a"), record("b", needs=["forget", "retain"]))
    assert all(row["flags"] == [] for row in by_method(table).values())


def test_flags_of_all_seeds_are_joined_without_repetition(only, record):
    seeds = [record(seed=0, flags=["b", "a"]), record(seed=1, flags=["a"]), record(seed=2)]
    assert by_method(only(*seeds))["durable"]["flags"] == ["a", "b"]


def test_a_row_on_fewer_seeds_says_so(only, base, record):
    bases = [base.model_copy(update={"key": f"b{seed}", "seed": seed}) for seed in range(2)]
    rows = by_method(only(*bases, record("a", seed=0), record("a", seed=1), record("b", seed=0)))
    assert "fewer-seeds" in rows["b"]["flags"]
    assert rows["a"]["flags"] == rows["base"]["flags"] == []


def test_a_number_lost_in_one_seed_is_not_averaged_away(only, record):
    row = by_method(only(record(seed=0), record(seed=1, utility=(94.0, None))))["durable"]
    assert row["utility_after"] is None
    assert row["score"] is None
    assert "no-number" in row["flags"]


def test_a_method_rerun_with_a_newer_version_is_one_row_of_the_newer(only, record, origin):
    old = record(memorized=(96.0, 50.0), method_origin=origin("durable", version="0.1.0"), finished_at=FIRST)
    new = record(memorized=(96.0, 4.0), method_origin=origin("durable", version="0.2.0"), finished_at=SECOND)
    for order in ([old, new], [new, old]):
        row = by_method(only(*order))["durable"]
        assert (row["memorized_after"], row["version"], row["configs"], row["seeds"]) == (4.0, "0.2.0", 1, 1)
    assert only(old, new, all_configs=True).rows.height == 2


def test_seeds_of_different_versions_are_flagged(only, record, origin):
    seeds = [record(seed=s, method_origin=origin("durable", version=v)) for s, v in enumerate(["1.0", "1.1"])]
    row = by_method(only(*seeds))["durable"]
    assert row["version"] == "1.0, 1.1"
    assert "mixed-versions" in row["flags"]


def test_one_name_from_two_distributions_is_two_rows(only, record, origin):
    table = only(record(), record(method_origin=origin("durable", "unmemorize-fork", "3.0")))
    assert sorted(table.rows["distribution"]) == ["unmemorize", "unmemorize-fork"]
    assert table.rule == "single"


def test_testbeds_have_tables_of_their_own(frame, record):
    board = build_board(frame(record(testbed="noise"), record(testbed="backdoor"), record(suite="other")))
    assert [table.title for table in board.tables] == ["other / noise", "quick / backdoor", "quick / noise"]
    assert board.frame().height == 3


def test_testbeds_of_one_name_with_different_settings_are_not_mixed(frame, record):
    small = record(provider_config={"layers": 2, "data": {"copies": 10, "task": "additive"}})
    large = record(provider_config={"layers": 4, "data": {"copies": 10, "task": "multiplicative"}})
    board = build_board(frame(small, large))
    assert [table.variant for table in board.tables] == [
        "data.task=additive, layers=2", "data.task=multiplicative, layers=4",
    ]  # fmt: skip
    assert board.tables[0].title == "quick / noise (data.task=additive, layers=2)"
    assert board.frame()["variant"].to_list() == [table.variant for table in board.tables]


def test_rows_of_different_headline_metrics_are_not_mixed(frame, record):
    board = build_board(frame(record(), record("greedy", memorization="extraction@32+40")))
    assert [table.variant for table in board.tables] == [
        "memorization=extraction@50+50", "memorization=extraction@32+40",
    ]  # fmt: skip
    assert by_method(board.tables[1])["greedy"]["score"] is None


def test_changed_files_make_another_table(frame, record):
    board = build_board(frame(record(fingerprint={"corpus": "a"}), record("greedy", fingerprint={"corpus": "b"})))
    assert [table.variant for table in board.tables] == ["corpus=a", "corpus=b"]


def test_failed_and_skipped_methods_are_counted_with_the_first_line_of_the_reason(only, base, record):
    failures = [record("greedy", status="failed", reason="diverged at step 3\n  fix: x", seed=s) for s in range(2)]
    skipped = record("extra", status="skipped", reason="no extra data")
    silent = record("subnet", status="failed", reason=None)
    table = only(base, *failures, skipped, silent)
    assert table.unfinished.rows() == [
        ("greedy", "failed", "diverged at step 3", 2),
        ("subnet", "failed", "no reason was recorded", 1),
        ("extra", "skipped", "no extra data", 1),
    ]
    assert table.rows["method"].to_list() == ["base"]


def test_a_failure_mended_later_is_no_longer_listed(only, record, origin):
    same_key = [record(status="failed", reason="x"), record()]
    assert only(*same_key).unfinished.is_empty()
    older = record(status="failed", reason="x", method_origin=origin("durable", version="0.0.9"))
    assert only(older, record()).unfinished.is_empty()


def test_failures_are_listed_under_their_own_testbed_once(frame, record):
    failed = record("greedy", status="failed", reason="x", testbed="backdoor", memorization="", utility="")
    board = build_board(
        frame(record(), failed, record(testbed="backdoor"), record("a", memorization="m", testbed="backdoor"))
    )
    assert [table.unfinished.height for table in board.tables] == [1, 0, 0]


def test_a_testbed_where_everything_failed_has_a_table_without_rows(only, record):
    table = only(record(status="failed", reason="no model"))
    assert table.rows.is_empty()
    assert table.rows.columns == list(COLUMNS)
    assert table.unfinished["reason"].to_list() == ["no model"]
    assert not table.has_base


def test_a_board_can_be_built_before_the_base_is_measured(only, record):
    table = only(record())
    assert not table.has_base
    assert by_method(table)["durable"]["memorized_before"] == 96.0


def test_every_beginning_of_a_run_has_a_board(frame, rich_records):
    for count in range(1, len(rich_records) + 1):
        assert build_board(frame(*rich_records[:count])).tables


def test_the_order_of_records_does_not_matter(frame, rich_records):
    expected = build_board(frame(*rich_records)).frame()
    for records in itertools.islice(itertools.permutations(rich_records), 0, 3000, 500):
        assert build_board(frame(*records)).frame().equals(expected)


def test_no_records_are_an_error_in_three_parts(frame):
    with pytest.raises(StoreError) as error:
        build_board(frame())
    assert error.value.what == "there are no records to make a board from"
    assert "`records` in its results folder" in error.value.expected
    assert error.value.fix == "unmemorize run quick"


def test_boards_are_built_without_torch(tmp_path, rich_records):
    (tmp_path / "records.jsonl").write_bytes(b"".join(map(encode, rich_records)))
    code = (
        "import sys; from pathlib import Path; from unmemorize.results.store import Store; "
        "from unmemorize.leaderboard.board import build_board; from unmemorize.leaderboard.formats import *; "
        f"board = build_board(Store(Path({str(tmp_path)!r})).frame()); "
        "[rendered(board, kind) for kind in FORMATS]; "
        "assert not {'torch', 'transformers'} & set(sys.modules); print(len(board.tables))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_rows_of_several_versions_of_a_package_are_told(record, origin, only, base) -> None:
    rows = [
        record("durable", (96.0, 22.0), (94.0, 83.0), method_origin=origin("durable", "unmemorize", version))
        for version in ("0.1.0", "0.2.0")
    ]
    greedy = record("greedy", (96.0, 22.0), (94.0, 83.0), method_origin=origin("greedy", "unmemorize", "0.1.0"))
    mixed, same = only(base, rows[1], greedy), only(base, rows[0], greedy)
    sentence = "Rows of unmemorize were made with its versions 0.1.0, 0.2.0"
    assert any(sentence in line for line in caption(mixed))
    assert not any("versions" in line for line in caption(same))
