"""The one polars schema for records, and the way between a record and its row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from unmemorize.results.record import Record

SCHEMA_VERSION: Final = 2
"""Raised only when a column changes its meaning; new columns leave it as it is."""

_ORIGIN = pl.Struct(
    {"name": pl.String, "plugin": pl.String, "distribution": pl.String, "version": pl.String, "code": pl.String}
)

_VALUE = pl.Struct(
    {
        "metric": pl.String,
        "kind": pl.String,
        "direction": pl.String,
        "set": pl.String,
        "part": pl.String,
        "count": pl.Int64,
        "before": pl.Float64,
        "before_low": pl.Float64,
        "before_high": pl.Float64,
        "after": pl.Float64,
        "after_low": pl.Float64,
        "after_high": pl.Float64,
        "lowest": pl.Float64,
        "highest": pl.Float64,
    }
)

SCHEMA: Final[Mapping[str, pl.DataType]] = {
    "schema_version": pl.Int64(),
    "key": pl.String(),
    "key_version": pl.Int64(),
    "status": pl.String(),
    "finished_at": pl.String(),
    "suite": pl.String(),
    "testbed": pl.String(),
    "provider": _ORIGIN,
    "provider_config": pl.String(),
    "fingerprint": pl.String(),
    "method": pl.String(),
    "method_origin": _ORIGIN,
    "method_config": pl.String(),
    "stage": pl.String(),
    "needs": pl.List(pl.String),
    "metrics": pl.String(),
    "metric_origins": pl.List(_ORIGIN),
    "seed": pl.Int64(),
    "memorization": pl.String(),
    "utility": pl.String(),
    "values": pl.List(_VALUE),
    "curve": pl.String(),
    "seconds": pl.String(),
    "total_seconds": pl.Float64(),
    "peak_memory": pl.Int64(),
    "extra_memory": pl.Int64(),
    "parameters": pl.Int64(),
    "edited": pl.Int64(),
    "flags": pl.List(pl.String),
    "notes": pl.String(),
    "testbed_facts": pl.String(),
    "data_digest": pl.String(),
    "environment": pl.String(),
    "reason": pl.String(),
    "traceback": pl.String(),
    "deaths": pl.Int64(),
    "per_sequence_digest": pl.String(),
}
"""The columns of every frame of records: one row per record, in the order of `Record`'s fields."""

TEXT_COLUMNS: Final = frozenset(
    {
        "provider_config",
        "fingerprint",
        "method_config",
        "metrics",
        "curve",
        "seconds",
        "notes",
        "testbed_facts",
        "environment",
    }
)
"""Columns whose shape is free: JSON text with sorted keys, so that equal configurations are equal strings."""


def empty() -> pl.DataFrame:
    """Return a frame of no records."""
    return pl.DataFrame(schema=dict(SCHEMA))


def to_row(record: Record) -> dict[str, Any]:
    """Return the record as a row of the schema; numbers that are not finite become null."""
    fields = _plain(record.model_dump())
    for name in TEXT_COLUMNS:
        fields[name] = json.dumps(fields[name], sort_keys=True, ensure_ascii=False, default=str)
    return {"schema_version": SCHEMA_VERSION, **fields}


def from_row(row: Mapping[str, Any]) -> Record:
    """Return the record that a row of the schema stands for."""
    fields = {name: json.loads(row[name]) if name in TEXT_COLUMNS else row[name] for name in Record.model_fields}
    origin = fields["method_origin"]
    if origin is not None and origin["name"] is None:
        fields["method_origin"] = None
    return Record.model_validate(fields)


def to_frame(records: list[Record]) -> pl.DataFrame:
    """Return records as a frame, one row each, in the given order."""
    return pl.DataFrame([to_row(record) for record in records], schema=dict(SCHEMA))


def _plain(value: Any) -> Any:
    """Return `value` with every number that JSON cannot hold replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
