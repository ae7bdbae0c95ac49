"""What distinguishes tables of one name: the settings of their testbeds that differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def variants(heads: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each table the settings in which it differs from others of its suite and testbed.

    Args:
        heads: `suite`, `testbed`, `provider`, `provider_config`, `fingerprint`, `memorization` and `utility`
            of each.
    """
    names = [(head["suite"], head["testbed"]) for head in heads]
    settings = [_settings(head) for head in heads]
    found = []
    for name, own in zip(names, settings, strict=True):
        others = [other for other, same in zip(settings, names, strict=True) if same == name]
        found.append(", ".join(_differing(own, others)) if len(others) > 1 else "")
    return _numbered(names, found)


def _settings(head: Mapping[str, Any]) -> dict[str, str]:
    plain = {key: head[key] for key in ("provider", "memorization", "utility") if head[key]}
    return plain | _flat(json.loads(head["provider_config"])) | _flat(json.loads(head["fingerprint"]))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _differing(own: Mapping[str, str], group: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(own.items()) if {other.get(key) for other in group} != {value}]


def _numbered(names: Sequence[tuple[str, str]], found: Sequence[str]) -> list[str]:
    """Return the variants, with a number where words alone do not distinguish two tables."""
    keys = list(zip(names, found, strict=True))
    total, seen = Counter(keys), Counter[tuple[tuple[str, str], str]]()
    told = []
    for key in keys:
        seen[key] += 1
        told.append(f"{key[1]} no. {seen[key]}".strip() if total[key] > 1 else key[1])
    return told
