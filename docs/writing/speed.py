"""The speed page: how much faster each method is than its naive or earlier-style counterpart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from writing.markdown import NOTE, fenced

MEASURED = Path(__file__).resolve().parents[1] / "benchmarks.json"
COMMAND = "pytest -n0 tests/benchmarks --benchmark-enable --benchmark-only --benchmark-json docs/benchmarks.json"


def speed_page() -> str:
    """The ratios between each method and its counterpart, measured in one run."""
    command = fenced(COMMAND, "sh")
    parts = ["# Speed\n", f"The ratios are the result: both sides of each were measured in one run of\n\n{command}"]
    if not MEASURED.exists():
        return NOTE + "\n".join([*parts, "It has not been run yet.\n"])
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    cpu = measured["machine_info"]["cpu"]
    parts.append(f"on {cpu['brand_raw']}, {cpu['count']} cores, Python {measured['machine_info']['python_version']}.\n")
    groups: dict[str, list[dict[str, Any]]] = {}
    for benchmark in measured["benchmarks"]:
        groups.setdefault(benchmark["group"] or benchmark["name"], []).append(benchmark)
    for group, rows in sorted(groups.items()):
        parts.append(f"## {group}\n\n| | median | times the fastest |\n|---|---:|---:|")
        fastest = min(row["stats"]["median"] for row in rows)
        for row in sorted(rows, key=lambda row: row["stats"]["median"]):
            median = row["stats"]["median"]
            parts.append(f"| `{row['name']}` | {_duration(median)} | {median / fastest:.1f} |")
        parts.append("")
    return NOTE + "\n".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"
