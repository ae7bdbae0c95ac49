"""`unmemorize plan --probe`: seconds and memory of each method on each testbed, from one timed step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unmemorize.cli.echo import echo

if TYPE_CHECKING:
    from unmemorize.execution.plan import Cell
    from unmemorize.execution.preview import Preview
    from unmemorize.registry import Registry
    from unmemorize.suite.model import RunSettings

_GIB = 2**30


def print_probed(
    cells: Sequence[Cell], registry: Registry, run: RunSettings, device: str | None, *, as_json: bool
) -> None:
    """Probe the testbeds of `cells`, and print what each method would take, as a table or as JSON."""
    from unmemorize.cli.screen import print_json, print_table
    from unmemorize.execution.environment import chosen_device
    from unmemorize.execution.preview import preview
    from unmemorize.execution.runtime import Runtime
    from unmemorize.files.places import cache_folder

    chosen = chosen_device(run.device if device is None else device)
    runtime = Runtime(device=chosen, cache=cache_folder(), checkpointing=run.checkpointing, offload=run.offload)
    found = list(preview(cells, registry, runtime))
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    title = f"estimates on {chosen}, from one timed step on each testbed"
    print_table(title, ["testbed", "method", "cells", "each about", "memory", "free", "remark"], _rows(found))
    known = [one.estimate for one in found if one.estimate is not None and one.estimate.reason is None]
    from unmemorize.cli.screen import duration

    echo(f"\n{len(known)} of {len(found)} cells would run, about {duration(sum(e.seconds for e in known))}")


def _rows(found: Sequence[Preview]) -> list[list[str]]:
    grouped: dict[tuple[str, str], list[Preview]] = {}
    for one in found:
        grouped.setdefault((one.cell.testbed, one.cell.method), []).append(one)
    return [[testbed, method, str(len(ones)), *_described(ones)] for (testbed, method), ones in grouped.items()]


def _described(ones: Sequence[Preview]) -> list[str]:
    """Return seconds, memory and free memory of the most expensive cell, and the first remark."""
    from unmemorize.cli.screen import duration

    known = [one.estimate for one in ones if one.estimate is not None]
    remark = next((one.remark for one in ones if one.remark), "")
    if not known:
        return ["?", "?", "", remark]
    slowest = max(known, key=lambda estimate: estimate.seconds)
    largest = max(known, key=lambda estimate: estimate.need.device + estimate.need.cpu)
    if not remark and slowest.seconds > _LONG and slowest.advice:
        remark = f"shorter: {slowest.advice}"
    free = largest.need.free_cpu if largest.need.on_cpu else largest.need.free_device
    memory = largest.need.device + largest.need.cpu
    return [duration(slowest.seconds), _size(memory), _size(free), remark]


_LONG = 600.0
"""Seconds from which a method's own advice is shown."""


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"


def _as_json(one: Preview) -> dict[str, Any]:
    estimate = one.estimate
    return {
        "index": one.cell.index,
        "testbed": one.cell.testbed,
        "method": one.cell.method,
        "config": one.cell.method_config,
        "seed": one.cell.seed,
        "key": one.cell.key,
        "seconds": estimate and estimate.seconds,
        "device_bytes": estimate and estimate.need.device,
        "cpu_bytes": estimate and estimate.need.cpu,
        "fits": estimate and estimate.reason is None,
        "remark": one.remark,
    }
