"""Write the pages that are made from the code and from committed results: `python docs/build.py`.

A test compares every page with what this would write, so that none of them can rot.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from unmemorize import cli
from unmemorize.contracts import hookspecs
from unmemorize.leaderboard.board import Board, build_board
from unmemorize.leaderboard.flags import FLAGS
from unmemorize.leaderboard.markdown import to_markdown
from unmemorize.leaderboard.terminal import to_text
from unmemorize.registry.manager import Registry
from unmemorize.results.store import Store
from unmemorize.suite.fields import describe

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ROOT / "leaderboards"
NOTE = "<!-- written by docs/build.py; do not edit -->\n\n"


def kinds_page(registry: Registry, kind: Any, title: str, facts: Callable[[Any], list[tuple[str, str]]]) -> str:
    """One section for each registered class of a kind: what it does, its facts, its settings."""
    parts = [f"# {title}\n"]
    for name in registry.names(kind):
        value = registry.get(kind, name)
        parts.append(f"## {name}\n\n{inspect.cleandoc(value.__dict__.get('__doc__') or '')}\n")
        lines = [(label, text) for label, text in [*facts(value), ("paper", getattr(value, "paper", ""))] if text]
        parts.append("\n".join(f"- {label}: {text}" for label, text in lines) + "\n" if lines else "")
        parts.append(settings(value.Config))
    return NOTE + "\n".join(part for part in parts if part)


def settings(config: Any) -> str:
    """A table of the settings of a config class."""
    rows = [
        f"| `{field.name}` | {_cell(field.type)} | {_cell(field.default)} | {_cell(field.range)} | {field.sentence} |"
        for field in describe(config)
    ]
    if not rows:
        return ""
    return "\n".join(["| setting | type | default | range | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def methods_page(registry: Registry) -> str:
    """Every method."""
    return kinds_page(
        registry,
        "method",
        "Methods",
        lambda method: [("stage", method.stage), ("needs", ", ".join(sorted(method.needs)) or "nothing")],
    )


def metrics_page(registry: Registry) -> str:
    """Every metric."""
    return kinds_page(
        registry,
        "metric",
        "Metrics",
        lambda m: [("kind", m.kind), ("range", f"{m.range[0]:g} to {m.range[1]:g}, {m.direction} is better")],
    )


def providers_page(registry: Registry) -> str:
    """Every provider."""
    trains = {True: "trains from scratch", False: "does not train from scratch"}
    return kinds_page(registry, "provider", "Providers", lambda provider: [("training", trains[provider.trains()])])


def command_line_page(_: Registry) -> str:
    """The help of every command."""
    parts = ["# The command line\n"]
    context = click.Context(cli.group, info_name="unmemorize", max_content_width=100, terminal_width=100)
    parts.append(f"```\n{cli.group.get_help(context)}\n```\n")
    for name in cli.COMMANDS:
        command = cli.group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
        parts.append(f"## unmemorize {name}\n\n```\n{command.get_help(inner)}\n```\n")
    return NOTE + "\n".join(parts)


def hooks_page(_: Registry) -> str:
    """The signature and the meaning of every hook."""
    parts = ["# Hooks\n", "A plugin implements any of them with `@unmemorize.hookimpl`.\n"]
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if not hasattr(hook, "unmemorize_spec"):
            continue
        signature = str(inspect.signature(hook)).replace("'", "")
        parts.append(f"## {name}\n\n```python\ndef {name}{signature}\n```\n\n{inspect.getdoc(hook)}\n")
    return NOTE + "\n".join(parts)


def flags_page(_: Registry) -> str:
    """The rule of every flag on a board."""
    rows = [f"| `{name}` | {rule} |" for name, rule in FLAGS.items()]
    return NOTE + "\n".join(["# Flags on a board\n", "| flag | rule |", "|---|---|", *rows]) + "\n"


PAGES: dict[str, Callable[[Registry], str]] = {
    "docs/methods.md": methods_page,
    "docs/metrics.md": metrics_page,
    "docs/providers.md": providers_page,
    "docs/command_line.md": command_line_page,
    "docs/hooks.md": hooks_page,
    "docs/flags.md": flags_page,
}


def published() -> Iterator[tuple[str, Board]]:
    """Every results folder that is committed beside its suite."""
    for records in sorted(BOARDS.glob("*/records.jsonl")):
        yield records.parent.name, build_board(Store(records.parent).frame())


def pages() -> dict[str, str]:
    """Return every generated page by its path from the root."""
    registry = Registry.load("none")
    made = {path: page(registry) for path, page in PAGES.items()}
    for name, board in published():
        command = f"The records beside this page were written by\n\n```sh\n{command_of(name)}\n```\n\n"
        made[f"leaderboards/{name}/board.md"] = NOTE + command + to_markdown(board) + machine(name)
    made["docs/published.md"] = published_page()
    made["docs/speed.md"] = speed_page()
    made["README.md"] = with_boards((ROOT / "README.md").read_text(encoding="utf-8"))
    return made


def published_page() -> str:
    """Our rows beside the published ones, with the cause of each large difference."""
    data = tomllib.loads((BOARDS / "published" / "tinymem.toml").read_text(encoding="utf-8"))
    parts = ["# Our TinyMem rows beside the published ones\n", f"Published: {data['source']}.\n", data["causes"]["all"]]
    boards = dict(published())
    for table in data["table"]:
        parts.append(f"\n## {table['name']}\n")
        rows = [row for row in _ours(boards, table) if row["method"] in table["rows"]]
        parts.append(f"Ours: `{command_of(table['suite'])}`\n")
        parts.append(
            _beside(rows, table["rows"]) if rows else f"`unmemorize run {table['suite']}` has not been run yet."
        )
        for row in rows:
            if abs(row["memorized_after"] - table["rows"][row["method"]]["memorized"]) >= LARGE:
                parts.append(f"- **{row['method']}**: {data['causes'][row['method']]}")
    return NOTE + "\n".join(parts) + "\n"


LARGE = 15.0
"""Points of memorized that call for a cause."""


def _ours(boards: dict[str, Board], table: dict[str, Any]) -> list[dict[str, Any]]:
    if table["suite"] not in boards:
        return []
    rows = boards[table["suite"]].frame().to_dicts()
    wanted = table["provider"].items()
    return [row for row in rows if wanted <= _json(row["provider_config"]).items()]


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


def command_of(name: str) -> str:
    """The command that wrote committed records: all of the suite, unless a file beside it says which part."""
    path = BOARDS / name / "command.sh"
    return path.read_text(encoding="utf-8").strip() if path.exists() else f"unmemorize run {name}"


def speed_page() -> str:
    """The ratios between each method and its naive or earlier-style counterpart, measured in one run."""
    path = ROOT / "docs" / "benchmarks.json"
    command = (
        "```sh\npytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-json docs/benchmarks.json\n```"
    )
    parts = ["# Speed\n", f"The ratios are the result: both sides of each were measured in one run of\n\n{command}\n"]
    if not path.exists():
        return NOTE + "\n".join([*parts, "It has not been run yet.\n"])
    measured = json.loads(path.read_text(encoding="utf-8"))
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


def machine(name: str) -> str:
    """Say on what the committed records were made."""
    frame = Store(BOARDS / name).frame()
    lines = []
    for text in frame["environment"].unique(maintain_order=True):
        facts = _json(text)
        lines.append(
            f"- {facts['device_name']}, {facts['cores']} cores, {facts['threads']} threads; Python {facts['python']}, "
            f"torch {facts['torch']}, transformers {facts['transformers']}, unmemorize {facts['unmemorize']}"
        )
    first, last = frame["finished_at"].min(), frame["finished_at"].max()
    return f"\n\nMeasured from {first} to {last} on:\n\n" + "\n".join(sorted(set(lines))) + "\n"


def _json(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def with_boards(readme: str) -> str:
    """Put the committed boards into the places that a page keeps for them."""
    boards = dict(published())

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        text = to_text(boards[name], width=120).strip() if name in boards else "no results are committed yet"
        return f"<!-- board {name} -->\n```\n{text}\n```\n<!-- end -->"

    return re.sub(r"<!-- board (\S+) -->\n.*?<!-- end -->", fill, readme, flags=re.DOTALL)


def main() -> None:
    """Write every page, or with --check fail if one is stale."""
    stale = [path for path, text in pages().items() if not _same(ROOT / path, text)]
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}; run `python docs/build.py`" if stale else 0)
    for path, text in pages().items():
        (ROOT / path).write_text(text, encoding="utf-8")


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
