"""The key of a cell: a hash of everything that can change its numbers, and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from unmemorize.files.digests import bytes_digest
from unmemorize.results.record import BASE, PluginOrigin, RecordFields

KEY_VERSION: Final = 1
"""Raised whenever a key comes to mean something else, so that older records are not taken for it."""

BASE_TEXT: Final = f'{{"name":"{BASE}"}}'
"""What stands for the method in the keys of base cells."""


def canonical(value: object) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def identity(origin: PluginOrigin, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a plugin's class; the name of its entry point cannot change a number."""
    return {
        "name": origin.name,
        "distribution": origin.distribution,
        "version": origin.version,
        "config": dict(config),
    }


def testbed_text(origin: PluginOrigin, config: Mapping[str, Any], fingerprint: Mapping[str, str]) -> str:
    """Return what stands for a testbed in keys."""
    return canonical({**identity(origin, config), "fingerprint": fingerprint})


def cell_key(testbed: str, method: str, metrics: str, seed: int) -> str:
    """Hash the canonical JSON of the whole cell, put together from parts that are canonical already."""
    start = f'{{"key_version":{KEY_VERSION},"method":{method},"metrics":{metrics},'
    text = f'{start}"seed":{seed},"testbed":{testbed}}}'
    return bytes_digest(text.encode())


def key_of(record: RecordFields) -> str:
    """Return the key that the fields of a record call for."""
    origin = record.method_origin
    origins = {origin.name: origin for origin in record.metric_origins}
    metrics = {name: identity(origins[name], config) for name, config in record.metrics.items() if name in origins}
    return cell_key(
        testbed_text(record.provider, record.provider_config, record.fingerprint),
        BASE_TEXT if origin is None else canonical(identity(origin, record.method_config)),
        canonical(metrics),
        record.seed,
    )
