"""Modules and classes with what they define, so that a replaced function is seen and put right."""

from __future__ import annotations

import builtins
import operator
import os
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

    What joins later is no change unless it hides what was there before (an inherited method, a function that is built
    in): modules are imported, and fill themselves, when they are first used.

    Args:
        more: modules and classes beside those of Python, numpy, torch and the core that are loaded.
    """

    def __init__(self, more: Iterable[Any] = ()) -> None:
        found = {id(space): space for space in (*_shared(), *more)}
        self._before = [(space, _defined(space), set(vars(space))) for space in found.values()]

    def changes(self) -> list[str]:
        """Return in words what is another now."""
        return [f"{_called(space)}.{name} was replaced" for space, name, _ in self._replaced()]

    def restore(self) -> list[str]:
        """Put right what is another now, and return it in words."""
        replaced = list(self._replaced())
        words = [f"{_called(space)}.{name} was replaced" for space, name, _ in replaced]
        for space, name, value in replaced:
            if value is _INHERITED:
                delattr(space, name)
            else:
                setattr(space, name, value)
        return words

    def _replaced(self) -> Iterator[tuple[Any, str, Any]]:
        for space, before, names in self._before:
            now = vars(space)
            if not all(map(operator.is_, map(now.get, before), before.values())):
                for name, value in before.items():
                    if now.get(name) is not value and not _own_wrapper(space, name):
                        yield space, name, value
            if len(now) != len(names):
                yield from ((space, name, _INHERITED) for name in now.keys() - names if _shadows(space, name))


_INHERITED = object()
"""Stands for what a class or module does not define itself."""


def _own_wrapper(space: Any, name: str) -> bool:
    """Whether a library has wrapped a function of its own, as torch does when its compiler is first imported."""
    root = (space.__name__ if isinstance(space, ModuleType) else space.__module__).partition(".")[0]
    now = vars(space).get(name)
    code, place = getattr(now, "__code__", None), getattr(sys.modules.get(root), "__file__", None)
    if root == _OWN or code is None or place is None or getattr(now, "__name__", "") != name:
        return False
    return bool(code.co_filename.startswith(os.path.dirname(place)))


def _shadows(space: Any, name: str) -> bool:
    if isinstance(space, ModuleType):
        return hasattr(builtins, name) and not name.startswith("_")
    return not name.startswith("_abc") and any(name in vars(base) for base in space.__mro__[1:])


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
