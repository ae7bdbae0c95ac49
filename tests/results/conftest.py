"""A record of each kind, made of real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unmemorize.results.record import PluginOrigin, Record, Value


def _value(metric: str, name: str, after: float, **changes: Any) -> Value:
    fields = {
        "metric": metric, "kind": "memorization", "direction": "lower",
        "set": name, "part": "all", "count": 50,
        "before": 96.0, "before_low": 90.0, "before_high": 99.0,
        "after": after, "after_low": None, "after_high": None,
    }  # fmt: skip
    return Value(**(fields | changes))


def _record(key: str = "k0", status: str = "done", *, after: float = 4.0, **changes: Any) -> Record:
    values = [
        _value("extraction@50+50", "forget", after),
        _value("accuracy", "holdout", 93.0, kind="utility", direction="higher", before=94.0),
    ]
    fields: dict[str, Any] = {
        "key": key, "key_version": 1, "status": status, "finished_at": "2025-03-01T12:00:00+00:00",
        "suite": "quick", "testbed": "noise",
        "provider": PluginOrigin(name="tinymem", plugin="builtin", distribution="unmemorize", version="0.1.0"),
        "provider_config": {"layers": 2, "task": "additive"}, "fingerprint": {"corpus.txt": "abc"},
        "method": "durable",
        "method_origin": PluginOrigin(name="durable", plugin="builtin", distribution="unmemorize", version="0.1.0"),
        "method_config": {"ratio": 0.01, "scope": "layer"}, "stage": "unlearn", "needs": ["forget"],
        "metrics": {"extraction": {"prompt": 50}}, "metric_origins": [], "seed": 0,
        "memorization": "extraction@50+50", "utility": "accuracy",
        "values": values if status == "done" else [], "curve": [{"epoch": 1.0, "accuracy": 93.0}],
        "seconds": {"attribute": 0.25, "edit": 0.125}, "total_seconds": 0.375,
        "peak_memory": 10**9, "extra_memory": None, "parameters": 800_000, "edited": 2_000,
        "flags": ["approximate-attribution"],
        "notes": {"ties": 0, "text": 'quotes " and \n newlines, ünïcode'},
        "testbed_facts": {"epochs": 25}, "data_digest": "d1", "environment": {"python": "3.11"},
        "reason": None if status == "done" else "the loss is not finite", "traceback": None,
    }  # fmt: skip
    return Record(**(fields | changes))


@pytest.fixture
def make_record() -> Callable[..., Record]:
    return _record


@pytest.fixture
def make_value() -> Callable[..., Value]:
    return _value
