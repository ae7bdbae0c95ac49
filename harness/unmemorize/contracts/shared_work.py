"""Work that cells of one testbed share, and that is done again where somebody has changed its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.bits import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator


class Done(NamedTuple):
    """A piece of work that is done."""

    value: Any
    flags: frozenset[str]
    """Flags that were set by doing it."""
    seconds: float
    """What it took, which every user is charged."""


class SharedWork:
    """The latest value that `Context.shared` has computed on a testbed; only one, so that memory does not grow."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, Done, list[Any]] | None = None
        self.reused = 0.0
        """Seconds that were charged for work that another cell did, since somebody has set this to 0."""

    def find(self, key: Hashable) -> Done | None:
        """Return what was kept under `key`, if it is still bit by bit what it was."""
        if self._kept is None or self._kept[0] != key or self._kept[2] != list(_contents(self._kept[1].value)):
            return None
        self.reused += self._kept[1].seconds
        return self._kept[1]

    def keep(self, key: Hashable, done: Done) -> None:
        """Keep a piece of work instead of the one before."""
        self._kept = key, done, list(_contents(done.value))


def _contents(value: Any) -> Iterator[Any]:
    """Yield what tells a value from another: bits of tensors and arrays, plain values; other objects by identity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        yield len(value)
        for key, inner in value.items():
            yield key
            yield from _contents(inner)
    elif isinstance(value, (list, tuple)):
        yield len(value)
        for inner in value:
            yield from _contents(inner)
    elif hasattr(value, "data_ptr"):
        yield Fingerprint.of(value)
    elif hasattr(value, "tobytes"):
        yield value.tobytes()
    else:
        yield value if isinstance(value, (str, bytes, int, float, type(None))) else id(value)
