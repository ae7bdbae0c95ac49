"""Our TinyMem rows beside the published ones."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from unmemorize.leaderboard.board import Board
from writing.boards import BOARDS, command_of, parsed
from writing.markdown import NOTE

LARGE = 15.0
"""Points of memorized that call for a cause."""


def published_page(boards: Mapping[str, Board]) -> str:
    """Our rows beside the published ones, with the cause of each large difference."""
    data = tomllib.loads((BOARDS / "published" / "tinymem.toml").read_text(encoding="utf-8"))
    parts = ["# Our TinyMem rows beside the published ones\n", f"Published: {data['source']}.\n", data["causes"]["all"]]
    for given in data["table"]:
        parts.append(f"\n## {given['name']}\n")
        rows = [row for row in _ours(boards, given) if row["method"] in given["rows"]]
        parts.append(f"Ours: `{command_of(given['suite'])}`\n")
        parts.append(
            _beside(rows, given["rows"]) if rows else f"`unmemorize run {given['suite']}` has not been run yet."
        )
        for row in rows:
            if abs(row["memorized_after"] - given["rows"][row["method"]]["memorized"]) >= LARGE:
                parts.append(f"- **{row['method']}**: {data['causes'][row['method']]}")
    parts.append(
        "\n## What the released code does otherwise\n\nThe methods here follow their papers' definitions. The code:\n"
    )
    parts += [f"- **{method}**: {what}." for method, what in data["released_code"].items()]
    return NOTE + "\n".join(parts) + "\n"


def _ours(boards: Mapping[str, Board], given: dict[str, Any]) -> list[dict[str, Any]]:
    if given["suite"] not in boards:
        return []
    rows = boards[given["suite"]].frame().to_dicts()
    wanted = given["provider"].items()
    return [row for row in rows if wanted <= parsed(row["provider_config"]).items()]


def _beside(rows: list[dict[str, Any]], theirs: dict[str, dict[str, float]]) -> str:
    lines = [
        "| method | memorized %, ours | published | utility, ours | accuracy, published | seconds, ours | published |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        other = theirs[row["method"]]
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.2f}"
        lines.append(
            f"| {row['method']} | {row['memorized_after']:.1f} | {other['memorized']:.1f} | {row['utility_after']:.1f} "
            f"| {other['accuracy']:.1f} | {seconds} | {other.get('seconds', '–')} |"
        )
    return "\n".join(lines) + "\n"
