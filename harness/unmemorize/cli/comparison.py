"""What `unmemorize board A B` says about folders that share cells: where they agree, where not, and what may be why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl

    from unmemorize.results.merge import Merged

_MOST: Final = 20
"""Disagreeing cells that are listed one by one."""


def report(merged: Merged, folders: Sequence[str]) -> Iterator[str]:
    """Yield the lines that a reader of the merged board must know.

    Args:
        merged: what came of merging.
        folders: the name of each folder, in the order in which they were merged.
    """
    yield from _duplicates(merged.duplicates, folders)
    yield from _versions(merged.versions)
    settings = merged.frame.select("key", "method_config")
    numbers = merged.disagreements.join(settings, on="key", how="left", maintain_order="left")
    cells = numbers.partition_by("key", maintain_order=True)
    shown = dict(merged.duplicates.select("key", "shown").iter_rows())
    for cell in cells[:_MOST]:
        key = cell["key"][0]
        yield from _disagreement(cell, folders, folders[shown[key]])
        yield from _circumstances(key, merged.environments, folders)
    if len(cells) > _MOST:
        yield f"and {len(cells) - _MOST} more cells that disagree"


def _duplicates(duplicates: pl.DataFrame, folders: Sequence[str]) -> Iterator[str]:
    groups = duplicates.group_by("suite", "testbed", "sources", maintain_order=True).agg("shown")
    for suite, testbed, sources, shown in groups.iter_rows():
        names = _listed([folders[source] for source in sources])
        kept = ", ".join(f"{shown.count(source)} from {folders[source]}" for source in sources if source in shown)
        count = "1 cell is" if len(shown) == 1 else f"{len(shown)} cells are"
        yield f"note: {suite} / {testbed}: {count} in {names}; each is shown once, as it finished last: {kept}"


def _versions(versions: pl.DataFrame) -> Iterator[str]:
    for distribution, several in versions.iter_rows():
        yield (
            f"note: records of {distribution} {_listed(several)} stand on one board; "
            "numbers may differ between versions: run the older ones again"
        )


def _disagreement(numbers: pl.DataFrame, folders: Sequence[str], shown: str) -> Iterator[str]:
    from unmemorize.leaderboard.numbers import config

    cell = numbers.row(0, named=True)
    settings = "" if cell["method_config"] == "{}" else f" {config(cell['method_config'])}"
    what = f"{cell['method']}{settings}"
    yield (
        f"disagreement: {cell['suite']} / {cell['testbed']}, {what}, seed {cell['seed']}: the same versions, settings, "
        f"data and seed, other numbers; those from {shown} are shown"
    )
    for row in numbers.iter_rows(named=True):
        each = [one for one in row["each"] if one["value"] is not None]
        values = ", ".join(f"{one['value']:g} in {folders[one['source']]}" for one in each)
        yield f"  {row['metric']} {row['moment']} on {row['set']} ({row['part']}): {values}"


def _circumstances(key: str, environments: pl.DataFrame, folders: Sequence[str]) -> Iterator[str]:
    """Say in what the machines differed; or that they did not, so that it must be something else."""
    rows = environments.filter(environments["key"] == key)
    facts = {folders[row["source"]]: json.loads(row["environment"]) for row in rows.iter_rows(named=True)}
    differing = list(_differing(facts))
    if not differing:
        yield "  they ran on the same kind of machine and libraries: was code changed without a new version?"
    for name in differing:
        values = ", ".join(f"{one.get(name)} in {folder}" for folder, one in facts.items())
        yield f"  {name}: {values}"


def _differing(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in dict.fromkeys(name for one in facts.values() for name in one):
        if len({json.dumps(one.get(name)) for one in facts.values()}) > 1:
            yield name


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
