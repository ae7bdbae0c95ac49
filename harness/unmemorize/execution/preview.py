"""What the cells of a suite would take: testbeds are loaded and one step of each is timed, but no method acts."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.answers import ask
from unmemorize.execution.estimate import CostEstimate, estimate_cost
from unmemorize.execution.plan import Cell
from unmemorize.execution.probe import Rates, probe
from unmemorize.execution.runtime import Runtime
from unmemorize.results.record import BASE

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.registry.manager import Registry


class Preview(NamedTuple):
    """What one cell would take, or why nobody can say."""

    cell: Cell
    estimate: CostEstimate | None
    remark: str
    """Why there is no estimate, or why the cell would be skipped; nothing otherwise."""


def preview(cells: Sequence[Cell], registry: Registry, runtime: Runtime) -> Iterator[Preview]:
    """Yield a preview of each cell that is not a base, one loaded testbed after another.

    A testbed that would have to be trained first is not loaded, and its cells say so.

    Args:
        cells: planned cells, those of one testbed and seed side by side.
        registry: where the plugins are.
        runtime: device, cache, progress.
    """
    testbed: Testbed | None = None
    rates: Rates | None = None
    group = ""
    for cell in cells:
        if cell.method == BASE:
            continue
        if cell.group != group:
            testbed = None  # the one before is let go before the next is loaded
            gc.collect()
            group, testbed = cell.group, _loaded(cell, registry, runtime)
            rates = None if testbed is None else probe(testbed, runtime.context(cell.seed))
        if testbed is None or rates is None:
            yield Preview(cell, None, "the testbed must be trained first: `unmemorize run` does it, and keeps it")
        else:
            yield _previewed(cell, registry, testbed, runtime, rates)


def _loaded(cell: Cell, registry: Registry, runtime: Runtime) -> Testbed | None:
    provider_class = registry.provider(cell.provider)
    provider = provider_class(provider_class.Config(**cell.provider_config))
    if not provider.ready(runtime.context(cell.seed)):
        return None
    return runtime.load(provider, cell.testbed, cell.seed, registry)


def _previewed(cell: Cell, registry: Registry, testbed: Testbed, runtime: Runtime, rates: Rates) -> Preview:
    method_class = registry.method(cell.method)
    method = method_class(method_class.Config(**cell.method_config))
    reason = ask(method, "supports", testbed)
    if reason is not None:
        return Preview(cell, None, f"skipped: {reason}")
    estimate = estimate_cost(testbed, method, rates, checkpointing=runtime.checkpointing, offload=runtime.offload)
    if estimate is None:
        return Preview(cell, None, "the method does not say what it costs")
    return Preview(cell, estimate, f"skipped: {estimate.reason}" if estimate.reason else "")
