from __future__ import annotations

import polars as pl

from unmemorize.results.merge import latest, merge
from unmemorize.results.record import PluginOrigin
from unmemorize.results.schema import SCHEMA, to_frame

EARLY, LATE = "2025-03-01T12:00:00+00:00", "2025-03-02T12:00:00+00:00"


def test_frames_without_common_cells_are_simply_joined(make_record):
    merged = merge([to_frame([make_record("a")]), to_frame([make_record("b"), make_record("c")])])
    assert sorted(merged.frame["key"]) == ["a", "b", "c"]
    assert merged.duplicates.is_empty()
    assert merged.disagreements.is_empty()
    assert dict(merged.frame.schema) == dict(SCHEMA)


def test_one_cell_run_again_in_one_folder_is_no_duplicate(make_record):
    merged = merge([to_frame([make_record("a", "failed"), make_record("a"), make_record("a")])])
    assert merged.frame.height == 1
    assert merged.duplicates.is_empty()


def test_a_cell_in_two_folders_is_reported_and_kept_once(make_record):
    merged = merge([to_frame([make_record("a")]), to_frame([make_record("a")]), to_frame([make_record("b")])])
    assert merged.frame.height == 2
    assert merged.duplicates.to_dicts() == [
        {"key": "a", "suite": "quick", "testbed": "noise", "method": "durable", "seed": 0, "copies": 2,
         "sources": [0, 1], "shown": 1}
    ]  # fmt: skip
    assert merged.disagreements.is_empty()


def test_different_numbers_for_one_cell_are_a_disagreement(make_record):
    merged = merge([to_frame([make_record("a", after=4.0)]), to_frame([make_record("a", after=6.0)])])
    (row,) = merged.disagreements.to_dicts()
    assert (row["metric"], row["set"], row["part"], row["moment"]) == (
        "extraction@50+50",
        "forget",
        "all",
        "after",
    )
    assert (row["lowest"], row["highest"]) == (4.0, 6.0)
    assert row["each"] == [{"source": 0, "value": 4.0}, {"source": 1, "value": 6.0}]
    assert merged.environments.to_dicts() == [
        {"key": "a", "source": source, "environment": '{"python": "3.11"}'} for source in (0, 1)
    ]


def test_rounding_is_no_disagreement(make_record):
    merged = merge([to_frame([make_record("a", after=4.0)]), to_frame([make_record("a", after=4.0 + 1e-9)])])
    assert merged.disagreements.is_empty()


def test_costs_may_differ_between_machines(make_record, make_value):
    def frame(seconds):
        value = make_value("seconds_per_token", "forget", seconds, kind="cost")
        return to_frame([make_record("a", values=[value])])

    assert merge([frame(1.0), frame(2.0)]).disagreements.is_empty()


def test_the_cell_that_finished_last_is_kept_in_whichever_order_folders_are_named(make_record):
    early, late = (to_frame([make_record("a", finished_at=time)]) for time in (EARLY, LATE))
    for frames in ([early, late], [late, early]):
        assert merge(frames).frame["finished_at"].to_list() == [LATE]


def test_done_wins_over_a_later_failure_elsewhere(make_record):
    done = to_frame([make_record("a", finished_at=EARLY)])
    failed = to_frame([make_record("a", "failed", finished_at=LATE)])
    assert merge([done, failed]).frame["status"].to_list() == ["done"]
    assert merge([done, failed]).disagreements.is_empty()


def test_merging_nothing_gives_an_empty_frame():
    merged = merge([])
    assert merged.frame.is_empty()
    assert dict(merged.frame.schema) == dict(SCHEMA)
    assert merged.duplicates.columns == ["key", "suite", "testbed", "method", "seed", "copies", "sources", "shown"]
    assert merged.disagreements.columns[-4:] == ["moment", "lowest", "highest", "each"]
    assert merged.versions.is_empty()


def test_the_source_that_finished_last_is_the_one_shown(make_record):
    early, late = (to_frame([make_record("a", finished_at=time)]) for time in (EARLY, LATE))
    assert merge([late, early]).duplicates["shown"].to_list() == [0]


def test_several_versions_of_a_distribution_are_noticed(make_record):
    def record(key, version, status="done"):
        origin = PluginOrigin(name="mine", plugin="p", distribution="unmemorize-mine", version=version)
        return make_record(key, status, method="mine", method_origin=origin)

    first, second = to_frame([record("a", "0.1.0")]), to_frame([record("b", "0.2.0"), record("c", "0.3.0", "failed")])
    assert merge([first, second]).versions.to_dicts() == [
        {"distribution": "unmemorize-mine", "versions": ["0.1.0", "0.2.0"]}
    ]
    assert merge([first]).versions.is_empty()


def test_latest_keeps_the_order_of_first_importance(make_record):
    frame = to_frame([make_record("b"), make_record("a", "failed"), make_record("b", "failed")])
    assert latest(frame).select("key", "status").rows() == [("b", "done"), ("a", "failed")]
    assert latest(pl.DataFrame(schema=dict(SCHEMA))).is_empty()
