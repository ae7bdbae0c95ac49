"""What is put around a method so that one sees what it looks at, how much it computes, and how it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from unmemorize.contracts.context import Context
from unmemorize.contracts.testbed import Sequences

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Testbed

SHOWN = ("forget", "retain", "clean", "extra")
"""The sets that a method can be shown."""


class Interrupted(Exception):  # noqa: N818 - not an error of anybody
    """Raised inside a method on purpose, to see what it leaves behind."""

    def __init__(self) -> None:
        super().__init__("raised on purpose by `unmemorize check`, to see what is left behind")


@dataclass(slots=True)
class Watch:
    """What a method has done so far, and where it is to be interrupted."""

    touched: set[str] = field(default_factory=set)
    """The sets whose content it has read."""
    calls: int = 0
    """Forward passes."""
    rows: int = 0
    """Sequences that went through the model, counted as often as they did."""
    looks: int = 0
    """How often it looked at its deadline."""
    retrained: PreTrainedModel | None = None
    """The model that was trained again, where it asked for that."""
    stop_at_call: int | None = None
    stop_at_look: int | None = None

    def call(self, rows: int) -> None:
        """Take note of a forward pass over `rows` sequences; interrupt it if that was asked for."""
        self.calls += 1
        self.rows += rows
        if self.calls == self.stop_at_call:
            raise Interrupted

    def look(self) -> None:
        """Take note of a look at the deadline; interrupt it if that was asked for."""
        self.looks += 1
        if self.looks == self.stop_at_look:
            raise Interrupted


@dataclass(slots=True)
class WatchedContext(Context):
    """A context that tells its watch of every look at the deadline."""

    watch: Watch = field(default_factory=Watch)

    def check_deadline(self, where: str = "the method") -> None:
        """Look at the deadline."""
        self.watch.look()
        Context.check_deadline(self, where)  # a slotted dataclass is a second class, which `super()` does not know


@contextmanager
def watched_passes(watch: Watch, vocabulary: int) -> Iterator[None]:
    """Count what goes through the input embeddings of any model of this vocabulary: copies count, too."""

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and module.num_embeddings == vocabulary and inputs:
            watch.call(len(inputs[0]))

    handle = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def watched_sets(view: Testbed, watch: Watch) -> dict[str, Sequences]:
    """Let every set that `view` shows tell the watch when its content is read, and return these sets by name."""
    given: dict[str, Sequences] = {}
    for name in SHOWN:
        sequences = getattr(view, name)
        if isinstance(sequences, Sequences):
            given[name] = _watched(sequences, name, watch)
            setattr(view, name, given[name])
    return given


def _watched(sequences: Sequences, name: str, watch: Watch) -> Sequences:
    fields = {each.name for each in dataclasses.fields(Sequences)}

    class Watched(Sequences):
        """Rows that notice when they are read."""

        __slots__ = ()

        def __getattribute__(self, attribute: str) -> Any:
            if attribute in fields:
                watch.touched.add(name)
            return super().__getattribute__(attribute)

    return Watched(**{each: getattr(sequences, each) for each in fields})
