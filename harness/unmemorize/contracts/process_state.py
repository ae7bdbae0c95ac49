"""What all code of one process shares, and no plugin may change for everybody else: seen, named and undone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from unmemorize.contracts import shared_state
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.shared_state import Shared, StandardFiles

LIBRARIES: dict[str, Callable[[Any], tuple[Shared, ...]]] = {
    "sys": shared_state.python,
    "numpy": shared_state.numpy,
    "torch": shared_state.torch,
}
"""What is shared, by the library that holds it; one that nobody has imported holds nothing yet."""


class ProcessState:
    """Everything in this process that a plugin could change for everybody else, as it was when this was made.

    Args:
        ignoring: what is not looked at.
        namespaces: classes and modules whose functions are not to be replaced, or none.
    """

    def __init__(self, *, ignoring: tuple[Shared, ...] = (), namespaces: Namespaces | None = None) -> None:
        self._ignoring, self._namespaces = {each.said for each in ignoring}, namespaces
        self._before: list[tuple[Shared, Any]] = []
        self._standard = StandardFiles()
        for library in LIBRARIES:
            if library in sys.modules:
                self.note(library)

    def note(self, library: str) -> None:
        """Add the state of a library as it is now."""
        shared = LIBRARIES[library](sys.modules[library])
        self._before += [(each, each.read()) for each in shared if each.said not in self._ignoring]

    def changes(self) -> list[str]:
        """Return in words what is other now."""
        found = [text for shared, before in self._before for text in _differences(shared, before, shared.read())]
        return found + self._closed() + (self._namespaces.changes() if self._namespaces else [])

    def restore(self, *, generators: bool = True) -> Undone:
        """Undo every change; with `generators` it counts as one that a random generator was used."""
        undone, left = self._closed(), list[str]()
        self._standard.restore()
        replaced = self._namespaces.restore() if self._namespaces else []
        for shared, before in self._before:
            now = shared.read()
            if before == now:
                continue
            if generators or not shared.generator:
                (replaced if shared.code else undone).extend(_differences(shared, before, now))
            if shared.write is not None:
                shared.write(before)
            left += _differences(shared, before, shared.read())
        return Undone([*replaced, *undone], replaced, left)

    def _closed(self) -> list[str]:
        return [f"the standard file {number} was closed or replaced" for number in self._standard.changed()]


class Undone(NamedTuple):
    """In words, what was other than before."""

    changes: list[str]
    replaced: list[str]
    """Functions, classes, hooks and modes among that: code that runs in or instead of that of others."""
    left: list[str]
    """What of it cannot be undone."""


def _differences(shared: Shared, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict):
        yield from (shared.said.format(key) for key in {**before, **now} if before.get(key) != now.get(key))
    elif before != now:
        yield shared.said


@contextmanager
def printing_to_stderr() -> Iterator[None]:
    """Let everything that is printed inside, by other programs and libraries in C too, go to standard error."""
    files = StandardFiles()
    if {1, 2} <= files.kept.keys():
        _flush()
        os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        files.restore()
        files.close()


def _flush() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or no stream
            continue


@dataclass(slots=True)
class Guard:
    """What is known about a piece of a plugin's code that runs under guard."""

    state: ProcessState
    """The process as it was."""
    changes: list[str] = field(default_factory=list)
    """In words what it changed, once it has ended."""
    replaced: list[str] = field(default_factory=list)
    """Functions, classes, hooks and modes among that."""
    left: list[str] = field(default_factory=list)
    """What of that cannot be undone."""


@contextmanager
def guarded(
    *, ignoring: tuple[Shared, ...] = (), namespaces: Namespaces | None = None, generators: bool = False
) -> Iterator[Guard]:
    """Undo what a plugin's code changes in the process inside.

    What is printed goes to standard error. A process that the code has split off from this one ends here.

    Args:
        ignoring: what is not looked at.
        namespaces: classes and modules whose functions are not to be replaced, or none.
        generators: whether the use of a random generator counts as a change; it is undone in any case.
    """
    process = os.getpid()
    with printing_to_stderr():
        guard = Guard(ProcessState(ignoring=ignoring, namespaces=namespaces))
        try:
            yield guard
        finally:
            if os.getpid() != process:
                os._exit(0)
            undone = guard.state.restore(generators=generators)
            guard.changes.extend(undone.changes)
            guard.replaced.extend(undone.replaced)
            guard.left.extend(undone.left)
