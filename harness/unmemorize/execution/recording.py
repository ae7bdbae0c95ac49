"""Make records of cells: what every record says, and what one of a failure says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from unmemorize.execution.failures import Failure
from unmemorize.execution.plan import Cell
from unmemorize.results.keys import KEY_VERSION
from unmemorize.results.record import Record

_NOTHING: Mapping[str, Any] = {
    "values": [], "curve": [], "seconds": {}, "total_seconds": None, "peak_memory": None, "extra_memory": None,
    "parameters": None, "edited": None, "flags": [], "notes": {}, "testbed_facts": {}, "data_digest": None,
    "reason": None, "traceback": None,
}  # fmt: skip


def record_of(cell: Cell, status: str, environment: Mapping[str, Any], **found: Any) -> Record:
    """Return the record of a cell: what was planned, and what was `found`."""
    planned = {
        "suite": cell.suite,
        "testbed": cell.testbed,
        "provider": cell.provider_origin,
        "provider_config": cell.provider_config,
        "fingerprint": cell.fingerprint,
        "method": cell.method,
        "method_origin": cell.method_origin,
        "method_config": cell.method_config,
        "stage": cell.stage,
        "needs": list(cell.needs),
        "metrics": {name: dict(settings) for name, settings in cell.metrics.items()},
        "metric_origins": list(cell.metric_origins),
        "seed": cell.seed,
        "memorization": cell.memorization,
        "utility": cell.utility,
    }
    return Record(
        key=cell.key,
        key_version=KEY_VERSION,
        status=status,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=dict(environment),
        **{**planned, **_NOTHING, **found},
    )


def failed(cell: Cell, failure: Failure, environment: Mapping[str, Any], **found: Any) -> Record:
    """Return the record of a cell that failed."""
    return record_of(cell, "failed", environment, reason=failure.reason, traceback=failure.traceback, **found)
