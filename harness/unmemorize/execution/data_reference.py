"""The data of a testbed as they were, so that what a plugin does to them reaches no other cell."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from unmemorize.contracts.bits import same_bits

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed


class DataChanges(NamedTuple):
    """What was other than before, by name."""

    sets: list[str]
    """Sets in which some tensor held other values, or was another."""
    fields: list[str]
    """Other parts of the testbed: `window`, `facts`, `mlps`."""


class DataReference:
    """A testbed without its model, as it was.

    Memory: one copy of all sets.
    """

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._fields = [_Object.of("", testbed)]
        self._fields += [_Object.of("mlps", part) for mlp in testbed.mlps for part in (mlp, *mlp.block_matrices())]
        self._facts = copy.deepcopy(testbed.facts)
        self._holdouts = dict(testbed.holdouts)
        self._sets = [_Object.of(name, sequences) for name, sequences in testbed.sets().items()]
        self._tensors = [
            (name, value, value.detach(), value.clone())
            for name, sequences in testbed.sets().items()
            for value in _values(sequences).values()
            if isinstance(value, Tensor)
        ]

    def restore(self) -> DataChanges:
        """Restore what differs, and return what that was."""
        sets = [each.name for each in self._sets if each.restore()]
        fields = [name for each in self._fields for name in each.restore()]
        sets += [name for name in fields if name in _SETS]
        for name, tensor, memory, original in self._tensors:
            if tensor.data_ptr() != memory.data_ptr() or tensor.shape != memory.shape or tensor.dtype != memory.dtype:
                tensor.data = memory
                sets.append(name)
            if not same_bits(memory, original):
                memory.copy_(original)
                sets.append(name)
        fields += self._restore_contents()
        return DataChanges(list(dict.fromkeys(sets)), list(dict.fromkeys(name for name in fields if name not in _SETS)))

    def _restore_contents(self) -> Iterator[str]:
        testbed = self._testbed
        if not _alike(testbed.facts, self._facts):
            testbed.facts = copy.deepcopy(self._facts)
            self._fields[0].values["facts"] = testbed.facts
            yield "facts"
        now, before = testbed.holdouts, self._holdouts
        if list(now) != list(before) or any(now[name] is not before[name] for name in before):
            testbed.holdouts = dict(self._holdouts)
            self._fields[0].values["holdouts"] = testbed.holdouts
            yield "holdouts"


_SETS = ("forget", "forget_unseen", "retain", "clean", "extra", "holdouts")


def _values(thing: Any) -> dict[str, Any]:
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.name != "model"}


def _alike(now: object, before: object) -> bool:
    try:
        return bool(now == before)
    except Exception:  # a plugin's own objects may be compared in any way
        return False


class _Object(NamedTuple):
    """A data class, frozen or not, and the values of its fields."""

    name: str
    """What it is called; the testbed itself is called by its fields."""
    thing: Any
    values: dict[str, Any]

    @classmethod
    def of(cls, name: str, thing: Any) -> _Object:
        return cls(name, thing, _values(thing))

    def restore(self) -> list[str]:
        """Restore every field that is another object, and return what was changed."""
        changed = [name for name, value in self.values.items() if getattr(self.thing, name, None) is not value]
        for name in changed:
            object.__setattr__(self.thing, name, self.values[name])
        return [self.name or name for name in changed]
