"""The sentences under a table: how to read it, how its rows were chosen, what its flags mean."""

from __future__ import annotations

from typing import Final

from unmemorize.leaderboard.board import Board, Table
from unmemorize.leaderboard.columns import FRONTIER, origin
from unmemorize.leaderboard.flags import meaning
from unmemorize.results.record import BASE
from unmemorize.untrusted import line

_MOST: Final = 20
"""Records set aside that are named one by one."""

_RULES: Final = {
    "single": "Every method has one configuration; values are on the whole forget set.",
    "halves": (
        "Each method's best configuration by score on one half of the forget set (select); "
        "every row reports the other half (report)."
    ),
    "every": "Every configuration is shown, none is chosen; values are on the whole forget set.",
}


def caption(table: Table) -> list[str]:
    """Return the sentences that a reader needs to read this table."""
    if table.rows.is_empty():
        return ["Nothing is measured here yet."]
    sentences = [_measures(table), _choice(table), _intervals(table), _score()]
    if table.rows["frontier"].any():
        sentences.append(f"{FRONTIER} no other row is better in memorized, utility and seconds at once.")
    if not table.has_base:
        sentences.append("The base is not measured yet: read each row against its own value before.")
    return [*sentences, *_mixed_versions(table)]


def _mixed_versions(table: Table) -> list[str]:
    """Return a sentence for each distribution whose rows were made with several versions of it."""
    found: dict[str, set[str]] = {}
    for row in table.rows.to_dicts():
        found.setdefault(row["distribution"], set()).update(row["version"].split(", "))
    return [
        f"Rows of {name} were made with its versions {', '.join(sorted(versions))}: run them again with one before "
        "comparing them."
        for name, versions in sorted(found.items())
        if name and len(versions) > 1
    ]


def legend(table: Table) -> list[tuple[str, str]]:
    """Return the flags on this table and their rules, by name."""
    flags = sorted({flag for row in table.rows["flags"].to_list() for flag in row})
    return [(flag, meaning(flag)) for flag in flags]


def third_parties(table: Table, home: str) -> list[str]:
    """Return a line for each method of another distribution than `home`."""
    rows = table.rows.filter(~table.rows["distribution"].is_in(["", home])).to_dicts()
    return list(dict.fromkeys(f"{row['method']} comes from {origin(row)}." for row in rows))


def unfinished_lines(table: Table) -> list[str]:
    """Return a line for each method that failed or was skipped, with the number of cells and the reason."""
    return [
        f"{row['status']}: {row['method']} ({_count(row['count'], 'cell')}): {row['reason']}"
        for row in table.unfinished.to_dicts()
    ]


def set_aside_lines(board: Board) -> list[str]:
    """Return what a reader must know of records that were not believed, a line for each; nothing where all were."""
    every = board.set_aside
    if not every:
        return []
    records, it, leaves = (
        ("record was", "it", "it leaves") if len(every) == 1 else ("records were", "them", "they leave")
    )
    shown = [line(one) for one in every[:_MOST]]
    more = [f"and {len(every) - _MOST} more"] if len(every) > _MOST else []
    return [
        f"{len(every)} {records} set aside, damaged or impossible: no number stands on {it}, and the next run runs "
        f"what {leaves} open.",
        *shown,
        *more,
    ]


def _measures(table: Table) -> str:
    return f"memorized = {table.memorization} on the forget set; utility = {table.utility} on the hold-outs."


def _choice(table: Table) -> str:
    rule = _RULES[table.rule]
    if table.rule != "halves":
        return rule
    counts = table.rows.filter(table.rows["method"] != BASE)["configs"].unique().sort().to_list()
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{rule} Configurations per method: {many}."


def _intervals(table: Table) -> str:
    seeds = table.rows["seeds"].unique().sort().to_list()
    if seeds == [1]:
        return "One seed; intervals are 95 % over sequences."
    span = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    single = "; rows with one seed: over sequences" if seeds[0] == 1 else ""
    return f"Means over {span} seeds; intervals are 95 % over seeds (Student's t){single}."


def _score() -> str:
    return (
        "score = relative change of memorized + relative loss of utility (-1 is perfect); "
        "rows whose score intervals overlap share a rank."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
