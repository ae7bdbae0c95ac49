"""Splits of rows that nothing leaks through: whole families go to one side, and near-duplicates across sets go."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.data.duplicates import near_duplicate_groups, without_near_duplicates
from unmemorize.data.sequences import RowSet, token_lists
from unmemorize.errors import DataError

if TYPE_CHECKING:
    import torch


class RowSplit(NamedTuple):
    """Two sets out of one."""

    kept: RowSet
    taken: RowSet


def families(rows: RowSet) -> list[int]:
    """Return the family of each row: rows that name the same group, or are near-duplicates, or both in a chain."""
    labels = near_duplicate_groups(token_lists(rows))
    joined: dict[Hashable, Hashable] = {}

    def root(label: Hashable) -> Hashable:
        while joined.get(label, label) != label:
            label = joined[label]
        return label

    for row, label in zip(rows.rows, labels, strict=True):
        if row.group is not None:
            joined[root(label)] = root(("group", row.group))
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(label), len(numbers)) for label in labels]


def split_off(rows: RowSet, share: float, setting: str, generator: torch.Generator) -> RowSplit:
    """Split off whole families of rows, drawn by `generator`, until they hold about `share` of the rows.

    Raises:
        DataError: no family is small enough, so that one side would be empty.
    """
    import torch

    members: dict[int, list[int]] = {}
    for index, family in enumerate(families(rows)):
        members.setdefault(family, []).append(index)
    wanted = max(1, round(share * len(rows)))
    taken: list[int] = []
    for number in torch.randperm(len(members), generator=generator).tolist():
        if len(taken) + len(members[number]) <= wanted:
            taken += members[number]
    if not taken or len(taken) == len(rows):
        largest = max(map(len, members.values()))
        raise DataError(
            f"{setting} = {share} cannot be split off {rows.name}: its {len(rows)} rows are {len(members)} families of "
            f"near-duplicates, the largest of {largest}",
            expected="families that fit on one side: one that is split would leak from side to side",
            fix=f"give a file of its own for {setting}, more rows, or another share",
        )
    chosen = set(taken)
    return RowSplit(rows.take(i for i in range(len(rows)) if i not in chosen), rows.take(sorted(chosen)))


def without_near_duplicates_of(rows: RowSet, of: Sequence[RowSet], name: str) -> RowSet:
    """Return the rows that are no near-duplicates of any row in the sets `of`, which errors call `name`.

    Raises:
        DataError: all of them are.
    """
    others = [tokens for each in of for tokens in token_lists(each)]
    kept = rows.keep(without_near_duplicates(token_lists(rows), others), f"near-duplicates of {name}")
    if not len(kept):
        same = {tuple(tokens) for tokens in others} & {tuple(tokens) for tokens in token_lists(rows)}
        keeping = "" if same else "; near_duplicates = 'keep' keeps all that are not equal"
        raise DataError(
            f"{rows.name}: every row is a near-duplicate of a row in {name}",
            expected=f"texts that share few 8-grams with those of {name}",
            fix=f"give other texts{keeping}",
        )
    return kept


def check_disjoint(rows: RowSet, of: Sequence[RowSet], name: str) -> None:
    """Refuse rows that stand in two sets.

    Raises:
        DataError: a row of `rows` is equal to one in `of`; both are named.
    """
    where = {tuple(row.tokens): row.where for each in of for row in each.rows}
    for row in rows.rows:
        other = where.get(tuple(row.tokens))
        if other is not None:
            raise DataError(
                f"{row.where} is the same sequence as {other}",
                expected=f"rows that do not stand in {name}",
                fix="remove one of the two; near_duplicates = 'drop' does it for all",
            )
