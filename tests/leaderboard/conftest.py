"""Small frames of records with chosen numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from unmemorize.files.digests import bytes_digest
from unmemorize.results.record import PluginOrigin, Record, Value
from unmemorize.results.schema import to_frame

MEMORIZATION, UTILITY = "extraction@50+50", "accuracy"


def _value(metric: str, about: str, before: float | None, after: float | None, **changes: Any) -> Value:
    fields: dict[str, Any] = {
        "metric": metric, "kind": "memorization", "direction": "lower", "set": about, "part": "all",
        "count": 50, "before": before, "after": after,
    }  # fmt: skip
    ends = dict.fromkeys(("before_low", "before_high", "after_low", "after_high"))
    return Value(**(ends | fields | changes))


def _headline(
    memorized: tuple[float | None, ...],
    utility: tuple[float | None, ...],
    halves: dict[str, float] | None = None,
) -> list[Value]:
    """The two headline values as (before, after) or (before, after, low, high), and `after` on each half."""
    ends = dict(zip(("after_low", "after_high"), memorized[2:], strict=False))
    values = [_value(MEMORIZATION, "forget", memorized[0], memorized[1], **ends)]
    values.append(_value(UTILITY, "holdout", utility[0], utility[1], kind="utility", direction="higher"))
    for part, after in (halves or {}).items():
        values.append(_value(MEMORIZATION, "forget", memorized[0], after, part=part))
    return values


def _origin(name: str, distribution: str = "unmemorize", version: str = "0.1.0") -> PluginOrigin:
    return PluginOrigin(name=name, plugin="p", distribution=distribution, version=version)


def _record(
    method: str = "durable",
    memorized: tuple[float | None, ...] = (96.0, 4.0),
    utility: tuple[float | None, ...] = (94.0, 93.0),
    *,
    halves: dict[str, float] | None = None,
    more: tuple[Value, ...] = (),
    **changes: Any,
) -> Record:
    """One finished cell; a method's settings, seed and the rest as keywords."""
    base = method == "base"
    status = changes.get("status", "done")
    fields: dict[str, Any] = {
        "key_version": 1, "status": status, "finished_at": "2025-03-01T12:00:00+00:00",
        "suite": "quick", "testbed": "noise", "provider": _origin("tinymem"),
        "provider_config": {"layers": 2},
        "fingerprint": {}, "method": method, "method_origin": None if base else _origin(method),
        "method_config": {} if base else {"ratio": 0.01}, "stage": "-" if base else "unlearn",
        "needs": [] if base else ["forget"], "metrics": {}, "metric_origins": [], "seed": 0,
        "memorization": MEMORIZATION, "utility": UTILITY,
        "values": [*_headline(memorized, utility, halves), *more] if status == "done" else [],
        "curve": [], "seconds": {}, "total_seconds": 0.0 if base else 2.0, "peak_memory": 2**29,
        "extra_memory": 0, "parameters": 1000, "edited": 0 if base else 25, "flags": [], "notes": {},
        "testbed_facts": {}, "data_digest": "d", "environment": {}, "reason": None, "traceback": None,
    }  # fmt: skip
    fields |= changes
    identity = [
        method,
        fields["suite"],
        fields["testbed"],
        fields["provider_config"],
        fields["method_config"],
    ]
    text = repr([*identity, fields["seed"], fields["method_origin"]])
    return Record(**({"key": f"k{bytes_digest(text.encode())}"} | fields))


@pytest.fixture
def record() -> Callable[..., Record]:
    return _record


@pytest.fixture
def value() -> Callable[..., Value]:
    return _value


@pytest.fixture
def origin() -> Callable[..., PluginOrigin]:
    return _origin


@pytest.fixture
def frame() -> Callable[..., pl.DataFrame]:
    return lambda *records: to_frame(list(records))


@pytest.fixture
def base() -> Record:
    return _record("base", (96.0, 96.0), (94.0, 94.0))


@pytest.fixture
def rich_records(base: Record) -> list[Record]:
    """A board on which every column has something to say and most flags are raised."""

    def ppl(before: float, after: float) -> Value:
        return _value("perplexity", "holdout", before, after, kind="utility")

    def unseen(after: float) -> Value:
        return _value(MEMORIZATION, "forget_unseen", 92.0, after)

    attack = _value("relearning@10", "forget", 98.0, 61.0, kind="robustness")
    goldfish = _origin("goldfish", "unmemorize-goldfish", "1.2.0")
    return [
        base.model_copy(update={"values": [*base.values, ppl(1.21, 1.21), unseen(92.0)]}),
        _record("balanced_subnet", (96.0, 0.0, 0.0, 7.1), (94.0, 93.4), needs=["forget", "retain"],
                total_seconds=41.3, more=(ppl(1.21, 1.25), unseen(12.0)), edited=251),
        _record("durable", (96.0, 22.0, 12.8, 35.2), (94.0, 83.0), more=(ppl(1.21, 2.4), unseen(20.0)),
                flags=["approximate-attribution"], total_seconds=0.23),
        _record("activations", (96.0, 18.0, 9.8, 30.8), (94.0, 85.0), more=(attack, ppl(1.21, 2.2)),
                total_seconds=0.41, method_config={"ratio": 0.05, "scope": "layer"}),
        _record("extra", (96.0, 90.0, 78.6, 95.7), (94.0, 95.1), stage="finetune", needs=["extra"],
                total_seconds=31.0, edited=1000),
        _record("loss_truncation", (96.0, 98.0, 89.5, 99.6), (94.0, 93.0), stage="train",
                needs=["training_data"], total_seconds=1204.0, edited=1000),
        _record("goldfish", (96.0, 30.0, 19.1, 43.8), (94.0, 92.0), stage="train", needs=["training_data"],
                method_origin=goldfish, total_seconds=1300.0, edited=1000, peak_memory=5 * 2**30),
        _record("greedy", status="failed",
                reason="greedy diverged: the loss is not finite at step 3\n  fix: x"),
        _record("example_tied_dropout", status="skipped",
                reason="it cannot train <this> testbed & 50_000 more"),
    ]  # fmt: skip
