"""Cells that ended without numbers: which methods failed or were skipped on a table, how often and why."""

from __future__ import annotations

from typing import Final

import polars as pl

PLACE: Final = ("suite", "testbed", "provider", "provider_config", "fingerprint")
"""Where a cell without numbers belongs: headline metrics are known only where something was measured."""


def unfinished(records: pl.DataFrame) -> pl.DataFrame:
    """Return one row per place, method, status and reason, with the number of cells as `count`.

    Takes the latest record of each cell. A cell is left out if another record of the same configuration and
    seed is done: an old failure that a newer version of a plugin corrected is no longer news.
    """
    cells = records.with_columns(provider=pl.col("provider").struct.field("name"))
    cell = [*PLACE, "method", "method_config", "seed"]
    done = cells.filter(pl.col("status") == "done").select(cell)
    missing = cells.filter(pl.col("status") != "done").join(done, on=cell, how="anti")
    first_line = pl.col("reason").fill_null("no reason was recorded").str.strip_chars().str.split("\n").list.first()
    groups = missing.group_by(*PLACE, "method", "status", reason=first_line, maintain_order=True)
    return groups.agg(count=pl.len()).sort("status", "method", "reason")
