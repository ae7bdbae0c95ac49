from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap

import polars as pl
import pytest

from unmemorize.errors import RecordError, StoreError
from unmemorize.results.lines import read_lines, sealed
from unmemorize.results.schema import SCHEMA, to_row
from unmemorize.results.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "deep" / "results")


@pytest.fixture
def shard(store):
    return store.shard()


@pytest.fixture
def write(store):
    """Write the one file of records that 0.1.0 and published results have."""

    def write(content):
        store.folder.mkdir(parents=True, exist_ok=True)
        (store.folder / "records.jsonl").write_bytes(content)

    return write


def old_line(record, **changes):
    """The line that 0.1.0 wrote."""
    row = to_row(record) | {"schema_version": 1} | changes
    for name in ("deaths", "per_sequence_digest"):
        del row[name]
    for origin in (row["provider"], row["method_origin"]):
        del origin["code"]
    for value in row["values"]:
        del value["lowest"], value["highest"]
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def test_append_makes_the_folder_and_the_record_comes_back(store, shard, make_record):
    shard.append(make_record("a"))
    assert store.record("a") == make_record("a")
    assert shard.path.parent == store.folder / "records"
    assert shard.path.read_bytes().endswith(b"}\n")


def test_a_folder_not_yet_made_holds_no_records(store):
    assert store.frame().is_empty()
    assert dict(store.frame().schema) == dict(SCHEMA)
    assert store.done_keys() == set()
    assert store.record("a") is None
    assert not store.folder.exists()
    assert not store.exists()


def test_records_keep_the_order_of_writing_over_shards(store, shard, make_record):
    for key in "cab":
        shard.append(make_record(key))
    store.shard().append(make_record("0"))
    assert store.frame()["key"].to_list() == ["c", "a", "b", "0"]


def test_records_of_several_shards_stand_as_they_finished(store, shard, make_record):
    first = store.shard()
    shard.append(make_record("late", finished_at="2025-03-02T12:00:00+00:00"))
    first.append(make_record("early", finished_at="2025-03-01T12:00:00+00:00"))
    assert store.frame()["key"].to_list() == ["early", "late"]


def test_appending_never_touches_what_is_there(shard, make_record):
    shard.append(make_record("a"))
    before = shard.path.read_bytes()
    shard.append(make_record("b"))
    assert shard.path.read_bytes().startswith(before)


@pytest.mark.parametrize("cut", [1, 10, 400])
def test_a_line_torn_by_a_killed_process_costs_only_itself(store, shard, make_record, cut):
    for key in "ab":
        shard.append(make_record(key))
    os.truncate(shard.path, shard.path.stat().st_size - cut - 1)
    reading = store.read()
    assert reading.frame["key"].to_list() == ["a"]
    (torn,) = reading.set_aside
    assert (torn.file, torn.line, torn.key) == (f"records/{shard.path.name}", 2, "b")
    store.shard().append(make_record("c"))
    assert store.read().frame["key"].to_list() == ["a", "c"]
    assert store.read().set_aside == (torn,)


def test_a_record_that_was_set_aside_is_no_news_once_its_cell_has_been_run_again(store, shard, make_record):
    shard.append(make_record("a", after=4.0))
    shard.path.write_bytes(shard.path.read_bytes().replace(b'"after":4.0', b'"after":5.0'))
    assert store.done_keys() == set()
    store.shard().append(make_record("a", "failed"))
    assert len(store.read().set_aside) == 1
    store.shard().append(make_record("a", after=6.0))
    assert store.read().set_aside == ()
    assert store.record("a").values[0].after == 6.0


def test_an_earlier_record_of_the_same_cell_does_not_hide_that_one_was_set_aside(store, shard, make_record):
    shard.append(make_record("a", after=6.0))
    shard.append(make_record("a", after=4.0))
    shard.path.write_bytes(shard.path.read_bytes().replace(b'"after":4.0', b'"after":5.0'))
    assert len(store.read().set_aside) == 1


def test_a_whole_line_that_lost_only_its_newline_is_not_lost(store, shard, make_record):
    shard.append(make_record("a"))
    os.truncate(shard.path, shard.path.stat().st_size - 1)
    assert store.frame()["key"].to_list() == ["a"]
    assert store.read().set_aside == ()


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_half_of_it(shard, store, make_record):
    resource = pytest.importorskip("resource")
    shard.append(make_record("a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (shard.path.stat().st_size + 100, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written: File too large"):
            shard.append(make_record("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    shard.append(make_record("c"))
    assert store.frame()["key"].to_list() == ["a", "c"]
    assert store.read().set_aside == ()


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
@pytest.mark.parametrize("kind", ["old", "sealed"])
def test_newlines_and_blanks_around_records_do_not_matter(store, write, make_record, content, kind):
    lines = {key: old_line(make_record(key)) if kind == "old" else sealed(to_row(make_record(key))) for key in "AB"}
    for key, line in lines.items():
        content = content.replace(f"{{{key}}}", line.decode().rstrip())
    write(content.encode())
    reading = store.read()
    assert reading.frame["key"].to_list() == [key for key in "AB" if f'"{key}"' in content]
    assert reading.set_aside == ()


def test_a_record_of_a_newer_release_with_more_fields_is_read(store, write, make_record):
    row = to_row(make_record("a")) | {"carbon": {"grams": [3, {"x": None}]}}
    row["values"][0]["unit"] = "%"
    write(sealed(row))
    assert store.record("a") == make_record("a")


def test_a_lone_surrogate_in_a_traceback_does_not_lose_the_record(store, shard, make_record):
    shard.append(make_record("a", "failed", traceback="path \udc80 here"))
    assert store.record("a").traceback == "path \ufffd here"


def test_latest_prefers_done_and_otherwise_the_last(store, shard, make_record):
    history = [("a", "done", 1.0), ("a", "failed", 0.0), ("b", "failed", 0.0), ("b", "skipped", 0.0)]
    history += [("c", "done", 1.0), ("c", "done", 2.0), ("d", "failed", 0.0), ("d", "done", 3.0)]
    for key, status, after in history:
        shard.append(make_record(key, status, after=after))
    latest = {row["key"]: row for row in store.latest().to_dicts()}
    assert {key: row["status"] for key, row in latest.items()} == {
        "a": "done", "b": "skipped", "c": "done", "d": "done",
    }  # fmt: skip
    assert latest["c"]["values"][0]["after"] == 2.0
    assert store.done_keys() == {"a", "b", "c", "d"}


def test_failed_cells_are_tried_again(store, shard, make_record):
    shard.append(make_record("a", "failed"))
    shard.append(make_record("b", "skipped"))
    assert store.done_keys() == {"b"}


def test_values_of_single_sequences_lie_beside_the_record(store, shard, make_record):
    values = pl.DataFrame({"metric": ["extraction"] * 3, "id": [4, 5, 6], "after": [0.0, 1.0, 0.0]})
    shard.append(make_record("a"), values)
    shard.append(make_record("b"))
    assert store.per_sequence("a").equals(values)
    assert store.per_sequence("b") is None
    assert [path.name for path in (store.folder / "per_sequence").iterdir()] == ["a.parquet"]
    assert store.bad_per_sequence() == []


def test_when_the_values_of_single_sequences_cannot_be_written_there_is_no_record(store, shard, make_record):
    store.folder.mkdir(parents=True)
    (store.folder / "per_sequence").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot be written: .*per_sequence: File exists"):
        store.check_writable()
    with pytest.raises(StoreError):
        shard.append(make_record("a"), pl.DataFrame({"id": [1]}))
    assert store.frame().is_empty()


def test_what_could_not_be_read_back_is_not_written(store, shard, make_record):
    with pytest.raises(RecordError) as error:
        shard.append(make_record("a").model_copy(update={"peak_memory": 2**70}), pl.DataFrame({"id": [1]}))
    assert error.value.what.startswith("what came of 'durable' cannot be recorded: peak_memory: Input should be")
    assert error.value.fix == "correct the plugin that left it: unmemorize check durable"
    assert not store.folder.exists()
    shard.append(make_record("a").as_failed(str(error.value)))
    assert store.record("a").status == "failed"


def test_the_files_of_a_store_are_readable_by_others(store, shard, make_record):
    old = os.umask(0o022)
    try:
        shard.append(make_record("a"), pl.DataFrame({"id": [1]}))
    finally:
        os.umask(old)
    for path in (shard.path, store.folder / "per_sequence" / "a.parquet"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from unmemorize.results.record import Record
    from unmemorize.results.store import Store
    folder, name, count = sys.argv[1:]
    template = Record.model_validate_json(sys.stdin.read())
    shard = Store(Path(folder)).shard()
    for number in range(int(count)):
        notes = {"fill": "x" * (5_000 * (number % 9))}
        shard.append(template.model_copy(update={"key": f"{name}-{number}", "notes": notes}))
""")


def _writer(store, name, count):
    command = [sys.executable, "-c", WRITER, str(store.folder), name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True)


def test_several_processes_may_append_at_once(store, make_record):
    writers = [_writer(store, name, 20) for name in ("p", "q", "r", "s")]
    for writer in writers:
        writer.stdin.write(make_record().model_dump_json())
        writer.stdin.close()
    for writer in writers:
        assert writer.wait(timeout=120) == 0
    reading = store.read()
    assert reading.set_aside == ()
    assert set(reading.frame["key"]) == {f"{name}-{number}" for name in "pqrs" for number in range(20)}
    assert reading.frame.height == 80
    assert len(list((store.folder / "records").iterdir())) == 4


def test_a_writer_killed_at_any_moment_harms_nothing(store, make_record):
    writer = _writer(store, "p", 1_000_000)
    writer.stdin.write(make_record().model_dump_json())
    writer.stdin.close()
    while store.frame().height < 5:
        assert writer.poll() is None
    writer.kill()
    writer.wait(timeout=60)
    written = store.frame().height
    store.shard().append(make_record("after"))
    reading = store.read()
    assert reading.frame.height == written + 1
    assert len(reading.set_aside) <= 1


def test_a_file_in_place_of_the_folder_is_named(tmp_path, make_record):
    path = tmp_path / "results"
    path.write_text("")
    for act in (lambda: Store(path).frame(), lambda: Store(path).shard().append(make_record())):
        with pytest.raises(StoreError) as error:
            act()
        assert error.value.what == f"{path} is not a folder"
        assert "records/*.jsonl or records.jsonl" in error.value.expected
        assert str(tmp_path) in error.value.fix


def test_a_folder_that_cannot_be_made_is_named(tmp_path, make_record):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is not a folder"):
        Store(tmp_path / "file" / "below").shard().append(make_record())


@pytest.mark.parametrize("name", ["records.jsonl", "records/shard.jsonl"])
def test_a_file_of_records_that_cannot_be_opened_is_named(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot be read: .*jsonl: Is a directory"):
        Store(tmp_path).frame()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path, make_record):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot be written: .*Permission denied") as error:
        Store(tmp_path).shard().append(make_record())
    assert "ls -ld" in error.value.fix


@pytest.mark.parametrize("seal", [True, False])
def test_records_of_a_newer_schema_ask_for_an_upgrade(store, write, make_record, seal):
    row = to_row(make_record()) | {"schema_version": 99}
    write(sealed(row) if seal else json.dumps(row).encode())
    for act in (store.frame, store.upgrade):
        with pytest.raises(StoreError) as error:
            act()
        assert "schema version 99" in error.value.what
        assert "pip install --upgrade" in error.value.fix


def test_records_of_0_1_0_are_read_and_upgraded(store, write, make_record):
    values = pl.DataFrame({"id": [1]})
    store.shard().append(make_record("b"), values)
    (store.folder / "records").joinpath(next((store.folder / "records").iterdir())).unlink()
    newer = sealed(to_row(make_record("c")))
    write(old_line(make_record("a")) + b"{torn\n" + old_line(make_record("b")) + newer)
    before = store.read()
    assert [store.record(key) for key in "abc"] == [make_record(key) for key in "abc"]
    store.upgrade()
    after = store.read()
    assert after.set_aside == before.set_aside
    assert after.frame["schema_version"].to_list() == [2, 2, 2]
    changed = ("schema_version", "per_sequence_digest")
    assert after.frame.drop(changed).equals(before.frame.drop(changed))
    assert after.frame["per_sequence_digest"].is_null().to_list() == [True, False, True]
    assert store.per_sequence("b").equals(values)
    content = (store.folder / "records.jsonl").read_bytes()
    store.upgrade()
    assert (store.folder / "records.jsonl").read_bytes() == content
    assert content.endswith(newer)


def test_lines_are_numbered_and_named(make_record):
    good = sealed(to_row(make_record("a")))
    lines = read_lines(b"\n" + good + b"rubbish\n" + good[:-30] + b"\n" + good, "records/x.jsonl")
    assert lines.frame["key"].to_list() == ["a", "a"]
    assert [(one.file, one.line, one.key) for one in lines.set_aside] == [
        ("records/x.jsonl", 3, None),
        ("records/x.jsonl", 4, "a"),
    ]
