"""Damaged, impossible and foreign records: set aside by name, never believed, never a reason to stop."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

import unmemorize
from unmemorize.errors import RecordError, StoreError
from unmemorize.leaderboard.markdown import to_markdown
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.registry.manager import Registry
from unmemorize.results.lines import read_lines, sealed
from unmemorize.results.record import Record
from unmemorize.results.schema import from_row
from unmemorize.results.store import Store

pytestmark = pytest.mark.faults

TOY = Path(__file__).parents[1] / "assets" / "toy.py"
SUITE = {
    "name": "toys",
    "description": "tiny",
    "testbed": {"toy": {"provider": "toy"}},
    "metric": {"extraction": {}, "accuracy": {}, "perplexity": {}},
    "method": {"durable": {"ratio": [0.05, 0.1]}, "random_weights": {}, "random_neurons": {}},
}
DAMAGED = 2
"""The record that is damaged: one of a method."""

Row = dict[str, Any]


def run(folder: Path) -> unmemorize.Results:
    registry = Registry.load("none")
    registry.add_file(TOY)
    return unmemorize.run(SUITE, registry=registry, results=folder, device="cpu")


def numbers(results: unmemorize.Results) -> list[tuple[Any, ...]]:
    return results.frame.sort("key").select("key", "status", "method", "values", "edited", "notes").rows()


class Whole(NamedTuple):
    """An undisturbed run."""

    results: unmemorize.Results
    content: bytes
    rows: tuple[Row, ...]

    @property
    def lines(self) -> list[bytes]:
        return self.content.splitlines(keepends=True)

    def with_line(self, line: bytes) -> bytes:
        """The file with another line in place of one of its records."""
        return b"".join([*self.lines[:DAMAGED], line, *self.lines[DAMAGED + 1 :]])

    def row(self) -> Row:
        copied: Row = json.loads(json.dumps(self.rows[DAMAGED]))
        return copied


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNMEMORIZE_CACHE", str(folder / "cache"))
        results = run(folder / "results")
    (shard,) = (folder / "results" / "records").iterdir()
    content = shard.read_bytes()
    rows = tuple({**json.loads(line)} for line in content.splitlines())
    for row in rows:
        del row["digest"]
    return Whole(results, content, rows)


def old(row: Row) -> bytes:
    """The line that 0.1.0 would have written."""
    if row.get("schema_version") == 2:
        row = row | {"schema_version": 1}
    new = {"deaths": 0, "per_sequence_digest": row.get("per_sequence_digest")}
    return json.dumps({name: value for name, value in row.items() if (name, value) not in new.items()}).encode() + b"\n"


def in_value(**changes: Any) -> Callable[[Row], Row]:
    def change(row: Row) -> Row:
        row["values"][0] |= changes
        return row

    return change


def with_fields(**changes: Any) -> Callable[[Row], Row]:
    return lambda row: row | changes


def without(name: str) -> Callable[[Row], Row]:
    return lambda row: {key: value for key, value in row.items() if key != name}


def twice(row: Row) -> Row:
    return row | {"values": row["values"] * 2}


def no_numbers(row: Row) -> Row:
    ends = [f"{moment}{end}" for moment in ("before", "after") for end in ("", "_low", "_high")]
    return row | {"values": [value | dict.fromkeys(ends) for value in row["values"]]}


IMPOSSIBLE: dict[str, tuple[Callable[[Row], Row], str]] = {
    "a value above its metric's range": (in_value(after=150.0, after_high=150.0), "after = 150 is outside its range"),
    "a value below its metric's range": (in_value(before=-1.0, before_low=-2.0), "before = -1 is outside its range"),
    "a value above its interval": (in_value(after=90.0, after_low=1.0, after_high=2.0), "outside its interval, 1.0 to"),
    "a value below its interval": (in_value(after=0.5, after_low=1.0, after_high=2.0), "outside its interval, 1.0 to"),
    "an interval upside down": (
        in_value(after=None, after_low=9.0, after_high=2.0),
        "outside its interval, 9.0 to 2.0",
    ),
    "a negative count": (in_value(count=-4), "values.0.count"),
    "half a sequence": (in_value(count=1.5), "values.0.count"),
    "a count beyond 64 bits": (in_value(count=2**70), "values.0.count"),
    "a value that is true": (in_value(after=True), "values.0.after"),
    "a value that is text": (in_value(after="4"), "values.0.after"),
    "a value that is NaN": (in_value(after=float("nan")), "values.0.after"),
    "an interval without an end": (in_value(after_high=float("inf")), "values.0.after_high"),
    "a value that is a list": (in_value(after=[1.0]), "values.0.after"),
    "an unknown direction": (in_value(direction="sideways"), "values.0.direction"),
    "no direction": (in_value(direction=None), "values.0.direction"),
    "an unknown kind": (in_value(kind="x"), "values.0.kind"),
    "a value of no metric": (in_value(metric=""), "values.0.metric"),
    "every value twice": (twice, "a value is there twice"),
    "done without values": (with_fields(values=[]), "the cell is done and has no values"),
    "done without a number": (no_numbers, "the cell is done and has no values"),
    "no value": (with_fields(values=[None]), "values.0"),
    "values that are text": (with_fields(values="x"), "values"),
    "an unknown status": (with_fields(status="weird"), "status"),
    "no status": (with_fields(status=None), "status"),
    "a key that is a path": (with_fields(key="../../x"), "key"),
    "a key that is a number": (with_fields(key=5), "key"),
    "no key": (without("key"), "key"),
    "no schema version": (without("schema_version"), "schema_version"),
    "a schema version that is true": (with_fields(schema_version=True), "schema_version"),
    "a schema version that is text": (with_fields(schema_version="1"), "schema_version"),
    "a schema version that never was": (with_fields(schema_version=-1), "schema_version"),
    "a schema version that never will be": (with_fields(schema_version=2**70), "schema_version"),
    "no suite": (with_fields(suite=None), "suite"),
    "no testbed": (without("testbed"), "testbed"),
    "no provider": (with_fields(provider=None), "provider"),
    "a method without a name": (with_fields(method=""), "method"),
    "a method that says it is the base": (with_fields(method="base"), "method_origin"),
    "a method from nowhere": (with_fields(method_origin=None), "method_origin"),
    "no seed": (with_fields(seed=None), "seed"),
    "a seed beyond 64 bits": (with_fields(seed=2**63), "seed"),
    "negative seconds": (with_fields(total_seconds=-1.0), "total_seconds"),
    "endless seconds": (with_fields(total_seconds=float("inf")), "total_seconds"),
    "seconds that are text": (with_fields(total_seconds="3 s"), "total_seconds"),
    "a phase of negative seconds": (with_fields(seconds='{"edit": -1}'), "seconds"),
    "negative memory": (with_fields(peak_memory=-1), "peak_memory"),
    "memory beyond 64 bits": (with_fields(peak_memory=2**70), "peak_memory"),
    "more edited than there is": (with_fields(edited=10**15), "parameters were edited"),
    "a time that is none": (with_fields(finished_at="yesterday"), "finished_at"),
    "no time": (with_fields(finished_at=None), "finished_at"),
    "settings that are no JSON": (with_fields(method_config="{oops"), "method_config"),
    "settings that are a list": (with_fields(provider_config="[1]"), "provider_config"),
    "settings that are no text": (with_fields(method_config={"ratio": 0.1}), "method_config"),
    "no environment": (with_fields(environment=None), "environment"),
    "flags that are text": (with_fields(flags="a"), "flags"),
    "a flag that is nothing": (with_fields(flags=[None]), "flags.0"),
    "needs that are nothing": (with_fields(needs=None), "needs"),
    "negative deaths": (with_fields(deaths=-1), "deaths"),
}


@pytest.mark.parametrize("kind", ["sealed", "old"])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_record_is_set_aside_whoever_wrote_it(whole: Whole, tmp_path: Path, name: str, kind: str) -> None:
    change, reason = IMPOSSIBLE[name]
    write = sealed if kind == "sealed" else old
    assert read_lines(write(whole.row())).set_aside == []
    _check_set_aside(whole, tmp_path, whole.with_line(write(change(whole.row()))), reason)


def _check_set_aside(whole: Whole, folder: Path, content: bytes, reason: str) -> None:
    """Exactly the one record is left out and named; its cell is not done; the others are as they were."""
    (folder / "records.jsonl").write_bytes(content)
    store = Store(folder)
    read = store.read()
    assert reason in "; ".join(one.said() for one in read.set_aside)
    assert len(read.set_aside) == 1
    others = whole.results.frame.filter(pl.col("key") != whole.rows[DAMAGED]["key"])
    assert read.frame.drop("schema_version").equals(others.drop("schema_version"))
    assert store.done_keys() == {row["key"] for row in whole.rows} - {whole.rows[DAMAGED]["key"]}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "another number": lambda line: line.replace(b'"before":100.0', b'"before":99.0', 1),
    "another digest": lambda line: line.replace(b'"digest":"', b'"digest":"0', 1),
    "no digest": lambda line: b"{" + line.partition(b",")[2],
    "another name of the digest": lambda line: line.replace(b"digest", b"digesu", 1),
    "one byte less": lambda line: line[:-3] + b"\n",
    "half of it": lambda line: line[: len(line) // 2] + b"\n",
    "NUL bytes inside": lambda line: line[:300] + b"\0\0\0" + line[303:],
    "NUL bytes instead": lambda line: b"\0" * len(line) + b"\n",
    "no UTF-8": lambda line: line.replace(b'"suite":"t', b'"suite":"\xff', 1),
    "a name twice": lambda line: line[:-2] + b',"seed":0}\n',
    "garbage": lambda _: b"garbage {{{\n",
    "a list": lambda _: b"[1, 2]\n",
    "an empty object": lambda _: b"{}\n",
    "nested too deep": lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
    "five megabytes": lambda _: b"{" + b"x" * 5_000_000 + b"}\n",
    "twice on one line": lambda line: line[:-1] + line,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_set_aside(whole: Whole, tmp_path: Path, name: str) -> None:
    damaged = DAMAGE[name](whole.lines[DAMAGED])
    assert damaged != whole.lines[DAMAGED]
    _check_set_aside(whole, tmp_path, whole.with_line(damaged), f"line {DAMAGED + 1}")
    board = to_markdown(unmemorize.load_results(tmp_path).board)
    assert "1 record was set aside, damaged or impossible" in board
    assert f"records.jsonl, line {DAMAGED + 1}: " in board


OLD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a name twice": (lambda line: line[:-2] + b', "seed": 0}\n', "a name is there twice"),
    "a name twice further in": (lambda line: line.replace(b'"count": ', b'"count": 1, "count": ', 1), "is there twice"),
    "a number too large": (lambda line: line.replace(b'"after": ', b'"after": 1e400, "x": ', 1), "values.0.after"),
    "other settings than its key's": (
        lambda line: line.replace(rb"ratio\": 0.1", rb"ratio\": 0.2", 1),
        "its key is not that of its",
    ),
    "another seed than its key's": (lambda line: line.replace(b'"seed": 0', b'"seed": 1', 1), "its key is not that of"),
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_record_without_a_digest_is_held_against_all_that_can_be_known(
    whole: Whole, tmp_path: Path, name: str
) -> None:
    damage, reason = OLD[name]
    line = old(whole.row())
    assert damage(line) != line
    _check_set_aside(whole, tmp_path, whole.with_line(damage(line)), reason)


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "Windows' line ends": lambda content: content.replace(b"\n", b"\r\n"),
    "a mark of UTF-8 in front": lambda content: b"\xef\xbb\xbf" + content,
    "blank lines": lambda content: content.replace(b"\n", b"\n\n \n"),
    "no last line end": lambda content: content[:-1],
    "every line twice": lambda content: content * 2,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_record_changes_nothing(whole: Whole, tmp_path: Path, name: str) -> None:
    (tmp_path / "records.jsonl").write_bytes(HARMLESS[name](whole.content))
    read = unmemorize.load_results(tmp_path)
    assert numbers(read) == numbers(whole.results)
    assert read.set_aside == ()


USELESS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda content: content[:1],
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "old Mac line ends": lambda content: content.replace(b"\n", b"\r"),
    "random": lambda _: random.Random(0).randbytes(10_000),
}


@pytest.mark.parametrize("name", USELESS)
def test_a_file_of_which_nothing_is_left_is_empty_and_the_board_says_so(
    whole: Whole, tmp_path: Path, name: str
) -> None:
    (tmp_path / "records.jsonl").write_bytes(USELESS[name](whole.content))
    assert Store(tmp_path).done_keys() == set()
    with pytest.raises(StoreError, match="there are no records to make a board from") as error:
        _ = unmemorize.load_results(tmp_path).board
    assert ("damaged or impossible" in error.value.what) == (name != "empty")


def test_records_that_are_removed_while_a_run_goes_on_are_missed_and_the_next_run_writes_them(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNMEMORIZE_EXECUTOR", "inline")
    folder = tmp_path / "results"

    class Remover:
        told = 0

        @hookimpl
        def cell_finished(self, event: object) -> None:
            self.told += 1
            if self.told == 2:
                shutil.rmtree(folder)

    registry = Registry.load("none")
    registry.add_file(TOY)
    registry.add(Remover(), name="remover")
    with pytest.warns(RuntimeWarning, match=rf"^2 records of this run are not in {folder} any more"):
        unmemorize.run(SUITE, registry=registry, results=folder, device="cpu")
    assert numbers(run(folder)) == numbers(whole.results)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["records.jsonl", "records/a.jsonl"])
def test_a_pipe_among_the_records_is_not_waited_for(whole: Whole, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "results"
    shutil.copytree(whole.results.folder, folder)
    os.mkfifo(folder / name)
    Store(folder).upgrade()
    assert Store(folder).frame().equals(whole.results.frame)


def test_1500_single_bits_flipped_never_change_a_record_without_a_word(whole: Whole) -> None:
    true = read_lines(whole.content).frame
    draw = random.Random(3)
    said = 0
    for _ in range(1_500):
        flipped = bytearray(whole.content)
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        lines = read_lines(bytes(flipped))
        assert lines.set_aside or lines.frame.equals(true)
        said += bool(lines.set_aside)
    assert said > 1_400


SUITE_FILE = """
name = "toys"
description = "tiny"
[testbed.toy]
provider = "toy"
[metric.extraction]
[metric.accuracy]
[metric.perplexity]
[method.durable]
ratio = [0.05, 0.1]
[method.random_weights]
[method.random_neurons]
"""


def test_a_run_goes_on_over_damage_completes_what_it_leaves_open_and_says_so(
    whole: Whole, tmp_path: Path, typed: Callable[..., Any]
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(whole.results.folder / "per_sequence", folder / "per_sequence")
    (folder / "per_sequence" / f"{whole.rows[1]['key']}.parquet").write_bytes(b"x")
    lines = whole.lines
    content = [DAMAGE["another number"](lines[0]), *lines[1:2], DAMAGE["NUL bytes inside"](lines[2])]
    content += [sealed(whole.rows[3] | {"edited": -1}), b"garbage\n", lines[4][:-40]]
    (folder / "records.jsonl").write_bytes(b"".join(content))
    (tmp_path / "toys.toml").write_text(SUITE_FILE)
    again = typed("run", "toys.toml", "--results", "results", "--plugin", str(TOY), "--device", "cpu", "-q")
    assert again.status == 0
    assert "4 run, 1 done before, 0 skipped, 0 failed, 5 damaged or impossible records set aside." in again.stdout
    assert f"note: the values of single sequences in results/per_sequence/{whole.rows[1]['key']}" in again.stderr
    for board in (again.stdout, (folder / "board.md").read_text()):
        assert "1 record was set aside, damaged or impossible" in board
        assert "records.jsonl, line 5: it is no JSON: expected value" in board
    assert numbers(unmemorize.load_results(folder)) == numbers(whole.results)


PER_SEQUENCE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "cut short": (lambda mine, _: mine.write_bytes(mine.read_bytes()[:50]), "are not those of its record"),
    "one bit flipped": (lambda mine, _: mine.write_bytes(_flipped(mine.read_bytes())), "are not those of its record"),
    "empty": (lambda mine, _: mine.write_bytes(b""), "are not those of its record"),
    "missing": (lambda mine, _: mine.unlink(), "are missing"),
    "a folder": (lambda mine, _: (mine.unlink(), mine.mkdir()), "are damaged"),
    "of another cell": (lambda mine, other: mine.write_bytes(other.read_bytes()), "are not those of its record"),
    "a pipe": (lambda mine, other: (mine.unlink(), os.mkfifo(mine)), "are not those of its record"),
}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", PER_SEQUENCE)
def test_bad_values_of_single_sequences_are_set_aside_and_their_record_stays(
    whole: Whole, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(whole.results.folder, folder)
    damage, reason = PER_SEQUENCE[name]
    keys = [row["key"] for row in whole.rows]
    mine, other = (folder / "per_sequence" / f"{key}.parquet" for key in keys[:2])
    damage(mine, other)
    store = Store(folder)
    with pytest.raises(StoreError, match=f"the values of single sequences in .*{keys[0]}.parquet {reason}"):
        store.per_sequence(keys[0])
    assert len(store.bad_per_sequence()) == 1
    assert store.per_sequence(keys[1]) is not None
    assert store.frame().equals(whole.results.frame)


def test_values_of_single_sequences_of_0_1_0_that_cannot_be_read_are_named(whole: Whole, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b"".join(map(old, whole.rows)))
    place = tmp_path / "per_sequence" / f"{whole.rows[0]['key']}.parquet"
    place.parent.mkdir()
    place.write_bytes(b"x" * 500)
    (bad,) = Store(tmp_path).bad_per_sequence()
    assert bad.endswith("are damaged")
    Store(tmp_path).upgrade()
    assert Store(tmp_path).bad_per_sequence() == [bad]


class Unspeakable:
    """Something that a plugin may leave in its notes."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


UNWRITABLE: dict[str, Row] = {
    "an object whose text raises": {"notes": {"x": Unspeakable()}},
    "notes nested without end": {"notes": {"x": nested(5_000)}},
    "notes of 20 MB": {"notes": {"x": "y" * 20_000_000}},
    "an integer without end": {"notes": {"x": 10**5_000}},
    "memory beyond 64 bits": {"peak_memory": 2**70},
    "negative seconds": {"total_seconds": -1.0},
    "another status": {"status": "weird"},
    "a path as key": {"key": "../x"},
    "no values": {"values": []},
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_could_not_be_read_back_is_refused_and_its_failure_can_be_written(
    whole: Whole, tmp_path: Path, name: str
) -> None:
    record: Record = from_row(whole.results.frame.row(DAMAGED, named=True))
    shard = Store(tmp_path).shard()
    with pytest.raises(RecordError) as error:
        shard.append(record.model_copy(update=UNWRITABLE[name]))
    assert list(tmp_path.iterdir()) == []
    assert len(str(error.value)) < 1_000
    if name not in ("a path as key", "another status"):
        shard.append(record.model_copy(update=UNWRITABLE[name]).as_failed(str(error.value)))
        assert Store(tmp_path).frame()["status"].to_list() == ["failed"]
