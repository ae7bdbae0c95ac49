"""`unmemorize plan`: which cells a suite has, which are done, and how long the rest may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unmemorize.cli.echo import echo
from unmemorize.cli.options import SuiteChoice, load_registry, shared_options, suite_options

if TYPE_CHECKING:
    from unmemorize.execution.plan import Cell, Plan
    from unmemorize.suite import Suite


@click.command()
@suite_options
@click.option("--probe", is_flag=True, help="Load the testbeds and time one step on each: seconds, memory.")
@click.option("--device", help="With --probe: cpu, cuda, cuda:1, mps; by default as `run`.")
@shared_options(json="Print JSON, one object for each cell.", verbose=True, threads=True)
def command(choice: SuiteChoice, as_json: bool, probe: bool, device: str | None) -> None:
    """Show which cells SUITE has: how many are done, how many would run, and how long these may take.

    Times are the medians of earlier records of the same method in the results folder. With --probe they come from one
    timed step on each testbed, together with the memory that a method needs and whether that is free.
    """
    from unmemorize.cli.screen import print_json
    from unmemorize.execution.plan import plan, split, usual_seconds
    from unmemorize.results.store import Store

    registry = load_registry(choice.plugins)
    suite = choice.load(registry)
    folder = choice.folder(suite)
    found = Store(folder).read()
    divided = split(plan(suite, registry), found.done_keys())
    if probe:
        from unmemorize.cli.probing import print_probed

        print_probed(divided.to_run, registry, suite.run, device, as_json=as_json)
        return
    if as_json:
        print_json([_as_json(cell, status) for status, cells in divided._asdict().items() for cell in cells])
        return
    _print(suite, divided, usual_seconds(found.frame), folder)


def _print(suite: Suite, divided: Plan, usual: Mapping[str, float], folder: Path) -> None:
    from unmemorize.cli.screen import print_table

    cells = sorted([*divided.cached, *divided.to_run], key=lambda cell: cell.index)
    waiting: dict[tuple[str, str], list[Cell]] = {(cell.testbed, cell.method): [] for cell in cells}
    planned = Counter((cell.testbed, cell.method) for cell in cells)
    for cell in divided.to_run:
        waiting[cell.testbed, cell.method].append(cell)
    rows = [
        [testbed, method, str(planned[testbed, method] - len(left)), str(len(left)), _time(left, usual)]
        for (testbed, method), left in waiting.items()
    ]
    print_table(f"plan of {suite.source}", ["testbed", "method", "cached", "to run", "about"], rows)
    done, left = len(divided.cached), len(divided.to_run)
    echo(f"\n{len(cells)} cells: {done} cached, {left} to run{_total(divided, usual)}")
    echo(f"Results: {folder}")


def _total(divided: Plan, usual: Mapping[str, float]) -> str:
    time = _time(divided.to_run, usual)
    if time == "?":
        return "; no earlier record says how long that takes"
    return f", about {time} of method time" if time else ""


def _time(cells: Sequence[Cell], usual: Mapping[str, float]) -> str:
    """Return the usual time of `cells`; `?` stands for methods without a record, nothing for no cells."""
    from unmemorize.cli.screen import duration
    from unmemorize.execution.plan import estimate

    seconds, unknown = estimate(cells, usual)
    if not cells or unknown == len(cells):
        return "?" if cells else ""
    return duration(seconds) + (f" + {unknown} x ?" if unknown else "")


def _as_json(cell: Cell, status: str) -> dict[str, Any]:
    return {
        "index": cell.index,
        "status": status,
        "testbed": cell.testbed,
        "method": cell.method,
        "config": cell.method_config,
        "seed": cell.seed,
        "key": cell.key,
    }
