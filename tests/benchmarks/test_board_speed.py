"""How fast a board is built over 100,000 records, from a frame and from a file."""

from __future__ import annotations

import json

import polars as pl
import pytest

from unmemorize.leaderboard.board import build_board
from unmemorize.leaderboard.terminal import to_text
from unmemorize.results.lines import sealed
from unmemorize.results.schema import SCHEMA, SCHEMA_VERSION
from unmemorize.results.store import Store

TESTBEDS, METHODS, CONFIGS, SEEDS = 10, 20, 100, 5
VALUES = [
    *[("extraction@50+50", "memorization", "lower", "forget", part) for part in ("all", "select", "report")],
    *[("extraction@50+50", "memorization", "lower", "forget_unseen", part) for part in ("all", "select", "report")],
    *[("recovered@50+50", "memorization", "higher", "forget", part) for part in ("all", "select", "report")],
    ("forget_perplexity", "memorization", "higher", "forget", "all"),
    *[("accuracy", "utility", "higher", about, "all") for about in ("holdout", "holdout:2", "holdout:3")],
    *[("perplexity", "utility", "lower", about, "all") for about in ("holdout", "holdout:2", "holdout:3")],
]


def many_records() -> pl.DataFrame:
    """100,000 records, 16 values each, made by columns."""
    row = pl.int_range(TESTBEDS * METHODS * CONFIGS * SEEDS, eager=True)
    frame = pl.DataFrame({"row": row}).with_columns(
        seed=pl.col("row") % SEEDS,
        config=pl.col("row") // SEEDS % CONFIGS,
        number=pl.col("row") // (SEEDS * CONFIGS) % METHODS,
        place=pl.col("row") // (SEEDS * CONFIGS * METHODS),
    )
    number, config = pl.col("number"), pl.col("config")
    after = (number * 7 + config * 3 + pl.col("seed")).cast(pl.Float64) % 90
    plugin = pl.struct(
        name=pl.lit("p"), plugin=pl.lit("p"), distribution=pl.lit("unmemorize"), version=pl.lit("1"), code=pl.lit("c")
    )
    columns = {
        "schema_version": SCHEMA_VERSION, "key_version": 1, "status": "done",
        "finished_at": "2025-03-01T12:00:00+00:00", "deaths": 0,
        "suite": "large", "provider_config": '{"layers": 2}', "fingerprint": "{}", "stage": "unlearn",
        "metrics": "{}", "memorization": "extraction@50+50", "utility": "accuracy", "curve": "[]",
        "seconds": "{}",
        "total_seconds": 1.5, "peak_memory": 2**30, "parameters": 1000, "edited": 10, "notes": "{}",
        "testbed_facts": "{}", "environment": json.dumps({"python": "3.11", "platform": "x" * 200}),
    }  # fmt: skip
    made = frame.select(
        *[pl.lit(value).alias(name) for name, value in columns.items()],
        key=pl.format("key-{}", "row"),
        testbed=pl.format("testbed-{}", "place"),
        provider=plugin,
        method=pl.when(number == 0).then(pl.lit("base")).otherwise(pl.format("method_{}", "number")),
        method_origin=pl.when(number == 0).then(None).otherwise(plugin),
        metric_origins=pl.concat_list(plugin),
        method_config=pl.concat_str(pl.lit('{"ratio": '), "config", pl.lit("}")),
        needs=pl.concat_list(pl.lit("forget")),
        seed="seed",
        after=after,
        flags=pl.concat_list(pl.lit("approximate-attribution")),
    )  # fmt: skip
    distinct = made.select("after").unique()
    values = distinct.with_columns(values=pl.concat_list([_value(entry, pl.col("after")) for entry in VALUES]))
    made = made.join(values, on="after", how="left")
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if name not in made.columns]
    return made.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _value(entry: tuple[str, ...], after: pl.Expr) -> pl.Expr:
    metric, kind, direction, about, part = (pl.lit(text) for text in entry)
    measured = after if entry[1] == "memorization" else 90.0 - after / 10
    return pl.struct(
        metric=metric, kind=kind, direction=direction, set=about, part=part, count=pl.lit(50),
        before=pl.lit(96.0), before_low=pl.lit(90.0), before_high=pl.lit(99.0),
        after=measured, after_low=measured - 1, after_high=measured + 1,
        lowest=pl.lit(0.0), highest=pl.lit(100.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def records() -> pl.DataFrame:
    return many_records()


@pytest.mark.benchmark(group="board")
def test_board_over_100_000_records(benchmark, records):
    board = benchmark.pedantic(build_board, (records,), rounds=3, warmup_rounds=0)
    assert len(board.tables) == TESTBEDS
    assert board.frame().height == TESTBEDS * METHODS
    assert board.frame()["configs"].unique().to_list() == [CONFIGS]


@pytest.mark.benchmark(group="board")
def test_every_configuration_of_100_000_records(benchmark, records):
    board = benchmark.pedantic(build_board, (records,), {"all_configs": True}, rounds=1, warmup_rounds=0)
    assert board.frame().height == TESTBEDS * METHODS * CONFIGS


@pytest.mark.benchmark(group="board")
def test_reading_20_000_records(benchmark, records, tmp_path):
    records = records.head(20_000)
    (tmp_path / "records.jsonl").write_bytes(b"".join(sealed(row) for row in records.iter_rows(named=True)))
    reading = benchmark.pedantic(Store(tmp_path).read, rounds=1, warmup_rounds=0)
    assert reading.set_aside == ()
    assert reading.frame.height == records.height


@pytest.mark.benchmark(group="board")
def test_showing_the_board_of_100_000_records(benchmark, records):
    text = benchmark.pedantic(to_text, (build_board(records),), rounds=1, warmup_rounds=0)
    assert text.count("base") >= TESTBEDS
