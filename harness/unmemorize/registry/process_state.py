"""What all code of one process shares, and no plugin may change for everybody else: seen, named and undone."""

from __future__ import annotations

import locale
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple


class Shared(NamedTuple):
    """Something that a whole process shares. A dictionary is compared key by key, `{}` stands for the keys."""

    said: str
    """What to say where it was changed."""
    read: Callable[[], Any]
    write: Callable[[Any], object]


def _environment() -> dict[str, str]:
    """Return the variables, but for what torch and pytest set by themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "TRITON", "PYTEST"))}


def _set_environment(before: Mapping[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _broad_filters() -> list[Any]:
    """Return the filters for warnings of every origin and text; libraries add others, which reach only their own."""
    return [each for each in warnings.filters if each[1] is each[3] is None and each[2].__module__ == "builtins"]


def _set_broad_filters(before: list[Any]) -> None:
    narrow = [each for each in warnings.filters if each not in _broad_filters()]
    warnings.filters[:] = [*narrow, *before]  # type: ignore[index]


def _handlers() -> dict[str, Any]:
    return {
        number.name: signal.getsignal(number) for number in signal.valid_signals() if isinstance(number, signal.Signals)
    }


def _set_handlers(before: Mapping[str, Any]) -> None:
    for name, handler in before.items():
        # None stands for a handler that was not set from Python; nothing can set it again.
        if handler is not None and signal.getsignal(signal.Signals[name]) is not handler:
            signal.signal(signal.Signals[name], handler)


def _streams() -> dict[str, Any]:
    return {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}


ENVIRONMENT = Shared("the environment variable {} was changed", _environment, _set_environment)


def _python(_sys: Any) -> tuple[Shared, ...]:
    return (
        Shared("Python's global random generator was used", random.getstate, random.setstate),
        Shared("the working folder was changed", os.getcwd, os.chdir),
        Shared("sys.{} was replaced", _streams, lambda before: vars(sys).update(before)),
        Shared("filters for all warnings were set", _broad_filters, _set_broad_filters),
        Shared("the handler of {} was replaced", _handlers, _set_handlers),
        Shared("the locale was changed", lambda: locale.setlocale(locale.LC_ALL),
               lambda before: locale.setlocale(locale.LC_ALL, before)),
        ENVIRONMENT,
    )  # fmt: skip


def _numpy(numpy: Any) -> tuple[Shared, ...]:
    def read() -> tuple[Any, ...]:
        name, keys, *rest = numpy.random.get_state()
        return name, keys.tobytes(), *rest

    def write(before: tuple[Any, ...]) -> None:
        numpy.random.set_state((before[0], numpy.frombuffer(before[1], dtype=numpy.uint32), *before[2:]))

    return (Shared("numpy's global random generator was used", read, write),)


def _torch(torch: Any) -> tuple[Shared, ...]:
    functional, module = torch.nn.functional, torch.nn.modules.module

    def hooks() -> dict[str, dict[Any, Any]]:
        return {name: dict(value) for name, value in vars(module).items() if name.endswith("_hooks")}

    def set_hooks(before: Mapping[str, dict[Any, Any]]) -> None:
        for name, value in before.items():
            current = getattr(module, name)
            current.clear()
            current.update(value)

    return (
        Shared("torch's global random generator was used", lambda: torch.get_rng_state().numpy().tobytes(),
               lambda before: torch.set_rng_state(torch.frombuffer(bytearray(before), dtype=torch.uint8))),
        Shared("torch's default dtype was changed", torch.get_default_dtype, torch.set_default_dtype),
        Shared("torch's default device was changed", torch.get_default_device,
               lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
        Shared("torch's grad mode was changed", torch.is_grad_enabled, torch.set_grad_enabled),
        Shared("torch's number of threads was changed", torch.get_num_threads, torch.set_num_threads),
        Shared("torch's switch for deterministic algorithms was changed",
               torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        Shared("torch's precision of matrix products was changed",
               torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        Shared("torch's anomaly detection was changed", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        Shared("hooks on all modules (torch.nn.modules.module) were left behind", lambda: tuple(hooks().items()),
               lambda before: set_hooks(dict(before))),
        Shared("torch.nn.functional.{} was replaced",
               lambda: {name: value for name, value in vars(functional).items() if callable(value)},
               lambda before: vars(functional).update(before)),
    )  # fmt: skip


_LIBRARIES: dict[str, Callable[[Any], tuple[Shared, ...]]] = {"sys": _python, "numpy": _numpy, "torch": _torch}
"""What is shared, by the library that holds it; one that nobody has imported holds nothing yet."""


class ProcessState:
    """Everything in this process that a plugin could change for everybody else, as it was when this was made."""

    def __init__(self, *, ignoring: tuple[Shared, ...] = ()) -> None:
        self._ignoring = ignoring
        self._before: list[tuple[Shared, Any]] = []
        for library in _LIBRARIES:
            if library in sys.modules:
                self.note(library)

    def note(self, library: str) -> None:
        """Add the state of a library as it is now."""
        shared = _LIBRARIES[library](sys.modules[library])
        self._before += [(each, each.read()) for each in shared if each not in self._ignoring]

    def changes(self) -> list[str]:
        """Return in words what is other now."""
        return [text for shared, before in self._before for text in _differences(shared, before)]

    def restore(self) -> None:
        """Undo every change."""
        for shared, before in self._before:
            if shared.read() != before:
                shared.write(before)


def _differences(shared: Shared, before: Any) -> Iterator[str]:
    now = shared.read()
    if isinstance(before, dict):
        yield from (shared.said.format(key) for key in {**before, **now} if before.get(key) != now.get(key))
    elif now != before:
        yield shared.said


class _ImportObserver(MetaPathFinder):
    """Notes the state of a library when it has just been imported, before anybody can change it."""

    def __init__(self, state: ProcessState) -> None:
        self._state = state

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name) if name in _LIBRARIES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def noting(module: ModuleType) -> None:
            execute(module)
            self._state.note(name)

        spec.loader.exec_module = noting  # type: ignore[method-assign]
        return spec


@contextmanager
def isolated_load() -> Iterator[list[str]]:
    """Undo what code changes in the process while a plugin is loaded; the list says afterwards what that was.

    What is printed goes to standard error. Environment variables stay: they are how libraries are configured.
    """
    changes: list[str] = []
    with redirect_stdout(sys.stderr):
        state = ProcessState(ignoring=(ENVIRONMENT,))
        witness = _ImportObserver(state)
        sys.meta_path.insert(0, witness)
        try:
            yield changes
        finally:
            sys.meta_path.remove(witness)
            changes += state.changes()
            state.restore()
