"""Modules and classes with what they define, so that a replaced function is seen and put right."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

_LIBRARIES = (
    "builtins", "json", "math", "os", "random", "time", "numpy", "numpy.random",
    "torch", "torch.autograd", "torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.optim",
    "torch.random",
)  # fmt: skip
_OWN = "unmemorize"


class Namespaces:
    """Functions, classes and properties of modules and classes, as they were when this was made.

    What joins later is no change: modules are imported, and fill themselves, when they are first used.

    Args:
        more: modules and classes beside those of Python, numpy, torch and the core that are loaded.
    """

    def __init__(self, more: Iterable[Any] = ()) -> None:
        found = {id(space): space for space in (*_shared(), *more)}
        self._before = [(space, _defined(space)) for space in found.values()]

    def changes(self) -> list[str]:
        """Return in words what is another now."""
        return [f"{_called(space)}.{name} was replaced" for space, name, _ in self._replaced()]

    def restore(self) -> list[str]:
        """Put right what is another now, and return it in words."""
        replaced = list(self._replaced())
        words = [f"{_called(space)}.{name} was replaced" for space, name, _ in replaced]
        for space, name, value in replaced:
            setattr(space, name, value)
        return words

    def _replaced(self) -> Iterator[tuple[Any, str, Any]]:
        for space, before in self._before:
            now = vars(space)
            for name, value in before.items():
                if now.get(name) is not value:
                    yield space, name, value


def _shared() -> Iterator[Any]:
    for name in _LIBRARIES:
        if name in sys.modules:
            yield sys.modules[name]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _OWN and isinstance(module, ModuleType):
            yield module
            yield from (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name)
    if "torch" in sys.modules:
        yield sys.modules["torch"].Tensor


def _defined(space: Any) -> dict[str, Any]:
    """Return what can be called or asked for; state that a library keeps in variables is its own business.

    `torch.Storage` is such state: it goes with the default dtype.
    """
    return {
        name: value for name, value in vars(space).items()
        if (callable(value) or hasattr(type(value), "__get__"))
        and not name.startswith("__pydantic") and name != "Storage"
    }  # fmt: skip


def _called(space: Any) -> str:
    return space.__name__ if isinstance(space, ModuleType) else f"{space.__module__}.{space.__qualname__}"
