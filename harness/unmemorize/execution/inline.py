"""Run chunks in this very process, unsupervised: for debuggers, and where one more process is one too many."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from unmemorize.execution.events import Ended
from unmemorize.execution.supervisor import ChunkTask, Watcher, claimed, write

if TYPE_CHECKING:
    from unmemorize.execution.plan import Cell
    from unmemorize.execution.runtime import Runtime
    from unmemorize.registry.manager import Registry


class Inline(Executor):
    """An executor whose tasks have ended when `submit` returns."""

    def __init__(self, registry: Registry, runtime: Runtime) -> None:
        from unmemorize.execution.cells import Cells

        self._cells = Cells(registry, runtime, self, interruptible=True)

    def submit(  # type: ignore[override]
        self, _supervise: Callable[..., Any], /, task: ChunkTask, watcher: Watcher
    ) -> Future[list[Ended]]:
        """Run a chunk here, with the plugins that are loaded here."""
        self._task, self._watcher, self._results = task, watcher, list[Ended]()
        for cell in task.cells:
            claim = claimed(task, cell)
            if claim is not None:
                with claim:
                    self._cells.run(cell, task.base)
            if self._results and self._results[-1].how == "unloaded":
                break
        future: Future[list[Ended]] = Future()
        future.set_result(self._results)
        return future

    def started(self, cell: Cell) -> None:
        """Pass it on."""
        self._watcher.started(cell)

    def acting(self, cell: Cell) -> None:
        """Pass it on."""
        self._watcher.acting(cell)

    def ended(self, cell: Cell, ended: Ended) -> None:
        """Write the record, and pass it on."""
        ended = write(self._task, ended)
        self._results.append(ended)
        self._watcher.ended(cell, ended)
