"""Odd files, settings, options and streams: refused in three parts or handled, never taken for something else."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

import unmemorize
from unmemorize import StrictConfig, UnmemorizeError
from unmemorize.cli import failures, group
from unmemorize.contracts.config import LARGEST
from unmemorize.data.corpora import open_corpus
from unmemorize.data.sequences import read_rows
from unmemorize.data.tokenization import Tokenization
from unmemorize.registry.manager import Registry
from unmemorize.suite import load_suite
from unmemorize.suite.header import Header

pytestmark = pytest.mark.faults

TOY = Path(__file__).parents[1] / "assets" / "toy.py"


# Files of sequences.


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def header(shape: str) -> bytes:
    """A numpy file that says that it holds an array of this shape, and holds nothing."""
    said = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(said)) + said.encode()


def npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, a=np.ones((2, 2), dtype=int))
    return content.getvalue()


def pt(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def parquet(rows: Any, damaged: slice = slice(0, 0)) -> bytes:
    content = io.BytesIO()
    pl.DataFrame({"tokens": rows}).write_parquet(content)
    whole = bytearray(content.getvalue())
    whole[damaged] = b"\xff" * len(whole[damaged])
    return bytes(whole)


WHOLE = torch.ones(2, 3, dtype=torch.long)
FILES: dict[str, tuple[Any, str]] = {
    "empty.npy": (b"", "is no numpy array"),
    "cut.npy": (npy(np.ones((2, 3), dtype=int))[:-3], "is no numpy array"),
    "bomb.npy": (header("(1000000000000, 64)"), "is no numpy array: mmap length is greater than file size"),
    "endless.npy": (header(f"({10**30},)"), "is no numpy array"),
    "overflow.npy": (header("(4294967296, 4294967296)"), "is no numpy array"),
    "below_zero.npy": (header("(-1, 4)"), "is no numpy array"),
    "code.npy": (header("__import__('os').getcwd()"), "is no numpy array"),
    "npz.npy": (npz(), "is no numpy array"),
    "ragged.npy": (npy(np.array([[1, 2], [3]], dtype=object)), "holds pickled objects"),
    "complex.npy": (npy(np.ones((2, 3), dtype=complex)), "holds an array of complex128"),
    "unsigned.npy": (npy(np.array([[2**64 - 1, 1]], dtype=np.uint64)), "row 0: tokens[0] is 18446744073709551615"),
    "no_columns.npy": (npy(np.ones((3, 0), dtype=int)), "row 0: tokens is empty"),
    "empty.pt": (b"", "cannot be read: EOFError"),
    "text.pt": (b"hello", "cannot be read: KeyError: 101"),
    "cut.pt": (pt(WHOLE)[:-50], "cannot be read"),
    "sparse.pt": (pt(WHOLE.to_sparse()), "holds an array of layout torch.sparse_coo"),
    "sparse_rows.pt": (pt([WHOLE[0].to_sparse()]), "row 0: the row cannot be read: Cannot access data pointer"),
    "meta.pt": (pt(WHOLE.to("meta")), "holds an array without values"),
    "meta_rows.pt": (pt([WHOLE[0].to("meta")]), "row 0: the row cannot be read: Cannot copy out of meta tensor"),
    "expanded.pt": (pt(WHOLE[:1, :1].expand(2**40, 64)), "has 1,099,511,627,776 rows"),
    "none.pt": (pt(None), "holds a NoneType"),
    "deep.jsonl": ("[" * 100_000, "line 1: not JSON: lists or tables are nested too deeply"),
    "deep_ids.jsonl": (json.dumps({"tokens": "[" * 100_000}), "line 1: tokens is the text '[[["),
    "endless_id.jsonl": ("[" + "1" * 5000 + "]", "line 1: not JSON: Exceeds the limit (4300 digits)"),
    "large_id.jsonl": ("[" + "1" * 40 + "]", "line 1: tokens[0] is 111"),
    "nan.jsonl": ("[NaN, 1]", "line 1: tokens[0] is nan"),
    "below_zero.jsonl": ("[-1, 2]", "line 1: tokens[0] is -1"),
    "copies.jsonl": ('{"tokens": [1, 2], "copies": 99999999999999999999}', "line 1: copies is 99999999999999999999"),
    "text_mask.jsonl": ('{"input_ids": [1, 2], "attention_mask": "11"}', "line 1: attention_mask is '11'"),
    "nested_mask.jsonl": ('{"input_ids": [1, 2], "attention_mask": [[0], [1]]}', "attention_mask is [[0], [1]]"),
    "nan_mask.jsonl": ('{"input_ids": [1, 2], "attention_mask": [NaN, 1]}', "line 1: attention_mask is [nan, 1]"),
    "nul.jsonl": (b"\0\0\0\n", "line 1: not JSON"),
    "cp1252.jsonl": ('{"text": "\u00e9"}'.encode("cp1252"), "is not UTF-8 text (byte"),
    "packed.jsonl": (gzip.compress(b"[1, 2]\n", mtime=0), "is not UTF-8 text (byte 1)"),
    "cut.parquet": (parquet([[1, 2]])[:-20], "cannot be read: parquet: File out of specification"),
    "forged.parquet": (parquet([[1, 2]], slice(-8, -4)), "cannot be read: parquet"),
    "damaged.parquet": (parquet([[1, 2]], slice(-60, -40)), "cannot be read: parquet"),
    "missing_id.parquet": (parquet([[1, None]]), "row 0: tokens[1] is None"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_sequences(name: str, tmp_path: Path) -> None:
    content, what = FILES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    with pytest.raises(UnmemorizeError) as caught:
        read_rows(str(tmp_path / name), "forget", Tokenization())
    assert what in caught.value.what
    assert caught.value.what.startswith("forget = ")
    assert len(str(caught.value)) < 1000


def test_missing_families_are_none(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"tokens": [1, 2], "group": NaN}\n{"tokens": [3, 4], "group": NaN}\n')
    assert {row.group for row in read_rows(tmp_path / "rows.jsonl", "forget", Tokenization()).rows} == {None}


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(UnmemorizeError, match="is a device or pipe"):
        read_rows(str(tmp_path / "rows.jsonl"), "forget", Tokenization())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.txt.gz", gzip.compress(b"text " * 100, mtime=0)[:-20]),
        ("forged.txt.gz", b"\x1f\x8b" + b"\0" * 40),
        ("text.txt.bz2", b"no bz2"),
        ("dump.xml", b"<mediawiki><page>&lol;</page>"),
        ("cut.parquet", parquet([[1]])[:-20]),
    ],
)
def test_damaged_files_of_a_corpus(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnmemorizeError, match=rf"retain = .*{name}.* cannot be read"):
        list(open_corpus(str(tmp_path / name), setting="retain").documents())


def test_a_small_file_does_not_unpack_into_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmemorize.data.corpora._LARGEST", 2**20)
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"a" * 2**21))
    with pytest.raises(UnmemorizeError, match="holds more than 1 MiB, unpacked"):
        list(open_corpus(str(tmp_path), setting="retain").documents())


# Settings.


def numbers(config: type[StrictConfig]) -> Iterator[str]:
    """The settings of a config that are a number, or a number or none."""
    for name, field in config.model_fields.items():
        parts = get_args(field.annotation) if type(None) in get_args(field.annotation) else (field.annotation,)
        if {getattr(kind, "__origin__", kind) for kind in parts} - {type(None)} in ({int}, {float}):
            yield name


CONFIGS = {
    f"{kind} {name}": Registry.load("none").get(kind, name).Config
    for kind in ("method", "metric", "provider", "executor")
    for name in Registry.load("none").names(kind)
}
WRONG: tuple[Any, ...] = (True, "1", float("nan"), float("inf"), -float("inf"), 10**400, [], {}, b"1")


@pytest.mark.parametrize("name", sorted(name for name, config in CONFIGS.items() if any(numbers(config))))
def test_a_number_of_any_setting_is_a_number(name: str) -> None:
    for field in numbers(CONFIGS[name]):
        for value in WRONG:
            with pytest.raises(ValidationError) as caught:
                CONFIGS[name](**{field: value})
            assert field in {error["loc"][0] for error in caught.value.errors() if error["loc"]}, (field, value)


class Nested(StrictConfig):
    """Settings of a third party, some of them named as what is no schema in a schema."""

    class Inner(StrictConfig):
        default: float = 0.5
        expected: bool = False

    inner: Inner = Inner()
    table: Any = None
    listed: tuple[int, ...] = ()
    share: str | float = "x"
    power: Any = 1


@pytest.mark.parametrize(
    "settings",
    [
        {"inner": {"default": True}},
        {"inner": {"default": "0.5"}},
        {"inner": {"expected": 1}},
        {"inner": {"expected": "yes"}},
        {"table": {"a": [float("nan")]}},
        {"table": {"a": {"b": 2**63}}},
        {"listed": [1, True]},
        {"listed": [1.0]},
        {"listed": [2**63]},
        {"share": True},
        {"share": float("inf")},
        {"power": -(2**63) - 1},
    ],
)
def test_numbers_of_third_parties_are_numbers(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Nested(**settings)


def test_numbers_that_are_meant_are_taken() -> None:
    made = Nested(inner={"default": 1}, table={"a": LARGEST}, listed=[1, 2], share=0.5, power=-LARGEST - 1)
    assert (made.inner.default, made.listed, made.share) == (1.0, (1, 2), 0.5)
    assert isinstance(made.inner.default, float)


HEAD = 'name = "t"\n'
TESTBED = '[testbed.quick]\nprovider = "tinymem"\n'
METRICS = "[metric.extraction]\n[metric.accuracy]\n"
WHOLE_SUITE = HEAD + TESTBED + METRICS
DURABLE = WHOLE_SUITE + "[method.durable]\n"
GRID = str([number / 10_000 for number in range(1, 2001)])
SUITES: dict[str, tuple[str | bytes, str]] = {
    "deep list": (HEAD + "seeds = " + "[" * 100_000, "nested too deeply"),
    "deep table": (HEAD + "a" + ".a" * 2000 + " = 1", "nested too deeply"),
    "deep inline table": (HEAD + "a = " + "{a = " * 300 + "1" + "}" * 300, "nested too deeply"),
    "endless integer": (HEAD + "seeds = " + "1" * 5000, "exceeds the limit (4300 digits)"),
    "same key twice": (HEAD + HEAD, "cannot overwrite a value"),
    "NUL": (b"\0" * 100, "invalid statement"),
    "cp1252": ('description = "\u00e9"'.encode("cp1252"), "is not UTF-8 text"),
    "UTF-16": (HEAD.encode("utf-16"), "is not UTF-8 text"),
    "large seed": (HEAD + "seeds = [9223372036854775808]\n" + TESTBED + METRICS, "beyond the 64 bits"),
    "seed bool": (HEAD + "seeds = [true]\n" + TESTBED + METRICS, "seeds[0] = true is wrong"),
    "ratio bool": (DURABLE + "ratio = true\n", "method.durable.ratio = true is wrong"),
    "ratio text": (DURABLE + "ratio = '0.1'\n", 'ratio = "0.1" is wrong'),
    "ratio nan": (DURABLE + "ratio = nan\n", "ratio = nan is wrong: input should be a finite number"),
    "ratio date": (DURABLE + "ratio = 1979-05-27\n", 'ratio = "1979-05-27" is wrong'),
    "deadline infinite": (WHOLE_SUITE + "[run]\ndeadline = inf\n", "run.deadline = inf is wrong"),
    "checkpointing text": (WHOLE_SUITE + "[run]\ncheckpointing = 'yes'\n", 'checkpointing = "yes" is wrong'),
    "rows as a fraction": (HEAD + TESTBED + "layers = 2.0\n" + METRICS, "testbed.quick.layers = 2.0 is wrong"),
    "grid of millions": (
        DURABLE + f"ratio = {GRID}\ntokens = {GRID}\n",
        "the grid of method.durable has 4,000,000 configurations",
    ),
    "millions of cells": (
        HEAD + f"seeds = {list(range(600))}\n" + DURABLE.removeprefix(HEAD) + f"ratio = {GRID}\n",
        "has 1,200,600 cells",
    ),
}


@pytest.mark.parametrize("name", SUITES)
def test_suites(name: str, registry: Registry, tmp_path: Path) -> None:
    content, what = SUITES[name]
    file = tmp_path / "t.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnmemorizeError) as caught:
        load_suite(file, registry)
    assert what in caught.value.what
    assert len(str(caught.value)) < 1500


def test_a_byte_order_mark_is_no_error(registry: Registry, tmp_path: Path) -> None:
    text = DURABLE + "ratio = 1\n"
    (tmp_path / "t.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    suite = load_suite(tmp_path / "t.toml", registry)
    assert suite.methods[0].configs[0].model_dump()["ratio"] == 1.0


def test_a_suite_in_python_is_no_deeper_than_a_file(registry: Registry) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UnmemorizeError, match="nested too deeply"):
        load_suite({"name": "t", "seeds": deep}, registry)


# Calls and commands.


@pytest.mark.parametrize(
    "said",
    [
        {"seed": True}, {"seed": -1}, {"seed": 0.5}, {"seed": 2**63}, {"deadline": float("nan")}, {"deadline": "5"},
        {"deadline": 0}, {"deadline": True}, {"device": ""}, {"device": "cuda:99"}, {"device": "tpu"},
        {"checkpointing": "yes"}, {"ratio": True}, {"ratio": "0.1"}, {"holdout": float("nan")}, {"max_rows": True},
    ],
    ids=repr,
)  # fmt: skip
def test_what_mitigate_is_told(said: dict[str, Any], folder: Path, registry: Registry) -> None:
    rows = torch.randint(3, 29, (6, 12), generator=torch.Generator().manual_seed(0)).tolist()
    given = {"method": "durable", "forget": rows[:3], "retain": rows[3:], "registry": registry} | said
    with pytest.raises(UnmemorizeError) as caught:
        unmemorize.mitigate(str(folder), **given)
    assert next(iter(said)) in caught.value.what


@pytest.mark.parametrize("said", [{"deadline": float("nan")}, {"deadline": True}, {"device": ""}, {"device": "mps:7"}])
def test_what_run_is_told(said: dict[str, Any], registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnmemorizeError) as caught:
        unmemorize.run("quick", registry=registry, results=tmp_path / "results", **said)
    assert next(iter(said)) in caught.value.what
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("batch", [0, True, "8", 2**63])
def test_what_find_is_told(batch: Any, folder: Path) -> None:
    with pytest.raises(UnmemorizeError, match="batch"):
        unmemorize.find(str(folder), [[3, 4, 5, 6]], prompt=2, suffix=2, batch=batch)


LONG = "x" * 5000
MITIGATE = "mitigate m --method durable --forget f.jsonl --out o"


@pytest.mark.parametrize(
    "arguments",
    [
        "run quick --seeds \u0663",
        "run quick --seeds 1_0",
        "run quick --seeds " + "9" * 5000,
        f"run quick --seeds {2**63}",
        "run quick --deadline nan",
        "run quick --deadline 1e400",
        "run quick --device ",
        "run quick --device gpu",
        "run quick --device cuda:99",
        f"run quick --threads {10**12}",
        "run quick --set method.durable.ratio=true",
        "run quick --set method.durable.ratio=" + "[" * 3000,
        "run quick --set seeds=" + "1" * 5000,
        "run quick --set run.executor_config" + ".a" * 5000 + "=1",
        f"run {LONG}",
        f"run quick --results {LONG}",
        "export quick --seed " + "9" * 40,
        "export quick --seed -1",
        f"{MITIGATE} --seed {2**63}",
        f"{MITIGATE} --deadline inf",
    ],
    ids=lambda arguments: arguments[:60],
)
def test_commands(arguments: str, typed: Callable[..., Any], tmp_path: Path) -> None:
    done = typed(*arguments.split(" "), UNMEMORIZE_PLUGINS="none")
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Usage") or all(part in done.stderr for part in ("error:", "expected:", "fix:"))
    assert len(done.stderr) < 6000 or "9999" in done.stderr
    assert not any(tmp_path.iterdir())


# Bugs, streams.


class SilentError(Exception):
    """One whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class OwnError(BaseException):
    """One that is no Exception."""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("x \x1b[31m y"), 70, "a bug in unmemorize, not in what you typed: ValueError: x"),
        (SilentError(), 70, "SilentError: (its text raised"),
        (OwnError("z"), 70, "OwnError: z"),
        (GeneratorExit(), 70, "GeneratorExit"),
        (RecursionError(), 70, "nested too deeply, or calls itself without end"),
        (MemoryError(), 2, "there is no memory left"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "there is no memory left"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), 2, "f: No space left on device"),
        (OSError(errno.EBADF, "Bad file descriptor"), 70, "a bug in unmemorize"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_bug_is_called_one(
    error: BaseException, status: int, said: str, typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(group.get_command(None, "list"), "callback", fail)  # type: ignore[arg-type]
    done = typed("list", "methods")
    assert done.status == status
    assert said in done.stderr
    assert all(part in done.stderr for part in ("error:", "expected:", "fix:"))
    assert ("--traceback" in done.stderr) == (status == failures.BUG)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("list methods >&-", 0, ""),
        ("list methods --json >&-", 0, ""),
        ("run nowhere.toml 2>&-", 2, ""),
        ("show balanced_subnet | head -1", 141, "balanced_subnet"),
        ("list methods --json | head -1", 0, "{"),
        ("list methods > /dev/full", 2, "standard output: No space left on device"),
    ],
)
def test_streams(command: str, status: int, said: str, tmp_path: Path) -> None:
    whole = f"{sys.executable} -m unmemorize {command}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", whole], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"UNMEMORIZE_PLUGINS": "none"},
    )  # fmt: skip
    assert done.returncode in (status, 0 if status == 141 else status), done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_letters_that_a_stream_does_not_have(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(HEAD.replace('"t"', '"t\u0663"'), encoding="utf-8")
    command = [sys.executable, "-m", "unmemorize", "plan", "t.toml"]
    environment = os.environ | {"UNMEMORIZE_PLUGINS": "none", "PYTHONIOENCODING": encoding, "COLUMNS": "-5"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.returncode == 2
    assert b"error: suite 't?'" in done.stderr
    assert Header.model_fields["name"].description
