from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap

import polars as pl
import pytest

from unmemorize.errors import StoreError
from unmemorize.results.schema import SCHEMA, to_row
from unmemorize.results.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "deep" / "results")


def test_append_makes_the_folder_and_the_record_comes_back(store, make_record):
    store.append(make_record("a"))
    assert store.record("a") == make_record("a")
    assert store.path.read_bytes().endswith(b"}\n")


def test_a_folder_not_yet_made_holds_no_records(store):
    assert store.frame().is_empty()
    assert dict(store.frame().schema) == dict(SCHEMA)
    assert store.done_keys() == set()
    assert store.record("a") is None
    assert not store.folder.exists()


def test_records_keep_the_order_of_writing(store, make_record):
    for key in "cab":
        store.append(make_record(key))
    assert store.frame()["key"].to_list() == ["c", "a", "b"]


def test_appending_never_touches_what_is_there(store, make_record):
    store.append(make_record("a"))
    before = store.path.read_bytes()
    store.append(make_record("b"))
    assert store.path.read_bytes().startswith(before)


@pytest.mark.parametrize("cut", [1, 10, 400])
def test_a_line_torn_by_a_killed_process_costs_only_itself(store, make_record, cut):
    for key in "ab":
        store.append(make_record(key))
    os.truncate(store.path, store.path.stat().st_size - cut - 1)
    reading = store.read()
    assert (reading.frame["key"].to_list(), reading.torn) == (["a"], 1)
    store.append(make_record("c"))
    reading = store.read()
    assert (reading.frame["key"].to_list(), reading.torn) == (["a", "c"], 1)
    assert store.torn == 1


def test_a_whole_line_that_lost_only_its_newline_is_not_lost(store, make_record):
    store.append(make_record("a"))
    os.truncate(store.path, store.path.stat().st_size - 1)
    store.append(make_record("b"))
    assert store.frame()["key"].to_list() == ["a", "b"]
    assert store.torn == 0


def test_foreign_lines_are_counted_and_the_rest_is_read(store, make_record):
    good = [json.dumps(to_row(make_record(key))) for key in "abcde"]
    foreign = [
        "not json",
        "[1, 2]",
        '"text"',
        "{}",
        '{"key": 5}',
        '{"schema_version": 1, "key": "x", "values": 7}',
        '{"schema_version": 1, "key": "x", "status": "done", "method": "m", "seed": "seven", "values": {}}',
        '{"hello": {"world": [1]}}',
        "\x00\x00\x00",
    ]
    lines = [line for pair in zip(good + good[:4], foreign, strict=True) for line in pair]
    store.folder.mkdir(parents=True)
    store.path.write_text("\n".join(lines) + "\n\n  \n")
    reading = store.read()
    assert reading.frame["key"].to_list() == list("abcdeabcd")
    assert reading.torn == len(foreign)


@pytest.mark.parametrize(
    "content",
    [
        "{A}\n",
        "{A}",
        "\n{A}\n",
        "{A}\n\n{B}\n",
        "{A}\r\n{B}\r\n",
        "{A}\n{B}",
        "{A}\n{B} \n",
        " {A}\n",
        "\ufeff{A}\n{B}\n",
    ],
)
def test_newlines_and_blanks_around_records_do_not_matter(store, make_record, content):
    lines = {key: json.dumps(to_row(make_record(key))) for key in "AB"}
    store.folder.mkdir(parents=True)
    store.path.write_bytes(content.replace("{A}", lines["A"]).replace("{B}", lines["B"]).encode())
    reading = store.read()
    assert reading.frame["key"].to_list() == [key for key in "AB" if f"{{{key}}}" in content]
    assert reading.torn == 0


def test_two_records_on_one_line_are_not_taken_for_one(store, make_record):
    line = json.dumps(to_row(make_record("a")))
    store.folder.mkdir(parents=True)
    store.path.write_text(f"{line}{line}\n{line}\n")
    assert store.read().frame["key"].to_list() == ["a"]
    assert store.torn == 1


def test_bytes_that_are_no_text_are_not_fatal(store, make_record):
    store.append(make_record("a"))
    with store.path.open("ab") as file:
        file.write(b"{\xff\xfe\x80}\n")
    store.append(make_record("b"))
    assert store.frame()["key"].to_list() == ["a", "b"]


def test_a_record_of_a_newer_release_with_more_fields_is_read(store, make_record):
    row = to_row(make_record("a")) | {"carbon": {"grams": 3}}
    row["values"][0]["unit"] = "%"
    store.folder.mkdir(parents=True)
    store.path.write_text(json.dumps(row) + "\n")
    assert store.record("a") == make_record("a")


def test_a_lone_surrogate_in_a_traceback_does_not_lose_the_record(store, make_record):
    store.append(make_record("a", "failed", traceback="path \udc80 here"))
    assert store.record("a").traceback == "path � here"


def test_latest_prefers_done_and_otherwise_the_last(store, make_record):
    history = [("a", "done", 1.0), ("a", "failed", 0.0), ("b", "failed", 0.0), ("b", "skipped", 0.0)]
    history += [("c", "done", 1.0), ("c", "done", 2.0), ("d", "failed", 0.0), ("d", "done", 3.0)]
    for key, status, after in history:
        store.append(make_record(key, status, after=after))
    latest = {row["key"]: row for row in store.latest().to_dicts()}
    assert {key: row["status"] for key, row in latest.items()} == {
        "a": "done", "b": "skipped", "c": "done", "d": "done",
    }  # fmt: skip
    assert latest["c"]["values"][0]["after"] == 2.0
    assert store.done_keys() == {"a", "b", "c", "d"}


def test_failed_cells_are_tried_again(store, make_record):
    store.append(make_record("a", "failed"))
    store.append(make_record("b", "skipped"))
    assert store.done_keys() == {"b"}


def test_values_of_single_sequences_lie_beside_the_record(store, make_record):
    values = pl.DataFrame({"metric": ["extraction"] * 3, "id": [4, 5, 6], "after": [0.0, 1.0, 0.0]})
    store.append(make_record("a"), values)
    assert store.per_sequence("a").equals(values)
    assert store.per_sequence("b") is None
    assert [path.name for path in (store.folder / "per_sequence").iterdir()] == ["a.parquet"]


def test_when_the_values_of_single_sequences_cannot_be_written_there_is_no_record(store, make_record):
    store.folder.mkdir(parents=True)
    (store.folder / "per_sequence").write_text("in the way")
    with pytest.raises(StoreError):
        store.append(make_record("a"), pl.DataFrame({"id": [1]}))
    assert store.frame().is_empty()


def test_the_files_of_a_store_are_readable_by_others(store, make_record):
    old = os.umask(0o022)
    try:
        store.append(make_record("a"), pl.DataFrame({"id": [1]}))
    finally:
        os.umask(old)
    for path in (store.path, store.folder / "per_sequence" / "a.parquet"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from unmemorize.results.record import Record
    from unmemorize.results.store import Store
    folder, name, count = sys.argv[1:]
    template = Record.model_validate_json(sys.stdin.read())
    for number in range(int(count)):
        notes = {"fill": "x" * (5_000 * (number % 9))}
        Store(Path(folder)).append(template.model_copy(update={"key": f"{name}-{number}", "notes": notes}))
""")


def _writer(store, name, count):
    command = [sys.executable, "-c", WRITER, str(store.folder), name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def test_several_processes_may_append_at_once(store, make_record):
    writers = [_writer(store, name, 40) for name in ("p", "q", "r", "s")]
    for writer in writers:
        writer.stdin.write(make_record().model_dump_json())
        writer.stdin.close()
    for writer in writers:
        assert writer.wait(timeout=120) == 0
    reading = store.read()
    assert reading.torn == 0
    assert set(reading.frame["key"]) == {f"{name}-{number}" for name in "pqrs" for number in range(40)}
    assert reading.frame.height == 160


def test_a_writer_killed_at_any_moment_harms_nothing(store, make_record):
    writer = _writer(store, "p", 1_000_000)
    writer.stdin.write(make_record().model_dump_json())
    writer.stdin.close()
    while store.frame().height < 5:
        assert writer.poll() is None
    writer.kill()
    writer.wait(timeout=60)
    written = store.frame().height
    store.append(make_record("after"))
    reading = store.read()
    assert reading.frame.height == written + 1
    assert reading.torn <= 1


def test_a_file_in_place_of_the_folder_is_named(tmp_path, make_record):
    path = tmp_path / "results"
    path.write_text("")
    for act in (lambda: Store(path).frame(), lambda: Store(path).append(make_record())):
        with pytest.raises(StoreError) as error:
            act()
        assert error.value.what == f"{path} is not a folder"
        assert "records.jsonl" in error.value.expected
        assert str(tmp_path) in error.value.fix


def test_a_folder_that_cannot_be_made_is_named(tmp_path, make_record):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is not a folder"):
        Store(tmp_path / "file" / "below").append(make_record())


def test_a_file_of_records_that_cannot_be_opened_is_named(tmp_path, make_record):
    (tmp_path / "records.jsonl").mkdir()
    with pytest.raises(StoreError, match="cannot be read: Is a directory"):
        Store(tmp_path).frame()
    with pytest.raises(StoreError, match="cannot be written: Is a directory"):
        Store(tmp_path).append(make_record())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path, make_record):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written: Permission denied") as error:
        Store(tmp_path).append(make_record())
    assert "ls -ld" in error.value.fix


def test_records_of_a_newer_schema_ask_for_an_upgrade(store, make_record):
    store.folder.mkdir(parents=True)
    store.path.write_text(json.dumps(to_row(make_record()) | {"schema_version": 99}) + "\n")
    with pytest.raises(StoreError) as error:
        store.frame()
    assert "schema version 99" in error.value.what
    assert "pip install --upgrade" in error.value.fix
