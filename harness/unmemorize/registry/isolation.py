"""Plugins are loaded so that what their code changes in the process, and prints, reaches nobody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import LIBRARIES, ProcessState, guarded
from unmemorize.contracts.shared_state import CHILDREN, ENVIRONMENT, FILES, SYS_PATH, THREADS, Shared


class _ImportObserver(MetaPathFinder):
    """Notes the state of a library when it has just been imported, before anybody can change it."""

    def __init__(self, state: ProcessState) -> None:
        self._state = state

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in LIBRARIES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def noting(module: ModuleType) -> None:
            execute(module)
            self._state.note(name)

        spec.loader.exec_module = noting  # type: ignore[method-assign]
        return spec


LOADING = (ENVIRONMENT, SYS_PATH)
"""What stays as a plugin sets it while it is loaded: how libraries are configured and found."""
TRACKING = (THREADS, CHILDREN, FILES)
"""What a tracker may leave: it talks to its server beside the run."""


@contextmanager
def isolated_call(ignoring: tuple[Shared, ...] = ()) -> Iterator[list[str]]:
    """Undo what a plugin's code changes in the process inside; the list says afterwards what that was.

    What is printed goes to standard error.
    """
    changes: list[str] = []
    with guarded(ignoring=ignoring, namespaces=Namespaces(), generators=True) as guard:
        witness = _ImportObserver(guard.state)
        sys.meta_path.insert(0, witness)
        try:
            yield changes
        finally:
            if witness in sys.meta_path:
                sys.meta_path.remove(witness)
    changes += [f"{change}; that is undone" for change in guard.changes if change not in guard.left] + guard.left
