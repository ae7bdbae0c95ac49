"""What all code of one process shares, and how each part of it is read and set."""

from __future__ import annotations

import contextlib
import gc
import locale
import operator
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple


class Shared(NamedTuple):
    """Something that a whole process shares. A dictionary is compared key by key, `{}` stands for the keys."""

    said: str
    """What to say where it was changed."""
    read: Callable[[], Any]
    write: Callable[[Any], object] | None = None
    """Sets it, given what was read; none where nothing can."""
    generator: bool = False
    """Whether this is a random generator: a change says only that it was drawn from."""
    code: bool = False
    """Whether this is code that runs in or instead of that of others."""


class Held(tuple[Any, ...]):
    """Objects of anybody's, which are the same only where they are one object: their own `==` is not asked."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and len(self) == len(other) and all(map(operator.is_, self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other


def _environment() -> dict[str, str]:
    """Return the variables, but for what torch and pytest set by themselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "TRITON", "PYTEST"))}


def _set_environment(before: Mapping[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed; the next one up is as good as any
        return os.sep


def _broad_filters() -> list[Any]:
    """Return the filters for warnings of every origin and text; libraries add others, which reach only their own."""
    return [each for each in warnings.filters if each[1] is each[3] is None and each[2].__module__ == "builtins"]


def _set_broad_filters(before: list[Any]) -> None:
    narrow = [each for each in warnings.filters if each not in _broad_filters()]
    warnings.filters[:] = [*narrow, *before]  # type: ignore[index]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers() -> dict[str, Any]:
    """Return the handlers of signals, which only the main thread may set."""
    known = (number for number in signal.valid_signals() if isinstance(number, signal.Signals))
    return {number.name: Held((signal.getsignal(number),)) for number in known} if _in_main_thread() else {}


def _set_handlers(before: Mapping[str, Any]) -> None:
    for name, (handler,) in before.items():
        # None stands for a handler that was not set from Python; nothing can set it again.
        if handler is not None and signal.getsignal(signal.Signals[name]) is not handler:
            signal.signal(signal.Signals[name], handler)


class _Timers(tuple[tuple[float, float], ...]):
    """Timers that send signals; the same where the same ones run, whatever time is left."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Timers) and [left > 0 for left, _ in self] == [left > 0 for left, _ in other]

    def __ne__(self, other: object) -> bool:
        return not self == other


_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF) if hasattr(signal, "setitimer") else ()


def _set_timers(before: _Timers) -> None:
    for which, (left, interval), (now, _) in zip(_TIMERS, before, _timers(), strict=True):
        if (left > 0) != (now > 0):
            signal.setitimer(which, left, interval)


def _timers() -> _Timers:
    return _Timers(signal.getitimer(which) for which in _TIMERS)


_STREAMS = ("stdin", "stdout", "stderr")
_HOOKS = ("excepthook", "unraisablehook", "displayhook")


def _of_sys(*names: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: Held((getattr(sys, name),)) for name in names}


def _set_sys(before: Mapping[str, Any]) -> None:
    vars(sys).update({name: value for name, (value,) in before.items()})


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _limits() -> dict[str, tuple[int, int]]:
    """Return the soft and hard limits of what this process may use."""
    try:
        import resource
    except ImportError:  # Windows has none
        return {}
    names = (name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def _set_limits(before: Mapping[str, tuple[int, int]]) -> None:
    import resource

    for name, limits in before.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        for wanted in (limits, (hard, hard)):  # a hard limit that was lowered may have to stay
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(which, wanted)
                break


class _OpenFiles(frozenset[int]):
    """Open files by their numbers; a few more are the business of libraries, many are a leak."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]
    few = 64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OpenFiles) and max(len(self - other), len(other - self)) <= self.few

    def __ne__(self, other: object) -> bool:
        return not self == other


def _files() -> _OpenFiles:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return _OpenFiles(map(int, os.listdir(folder)))
    return _OpenFiles()


class StandardFiles:
    """Duplicates of the three standard files: what they are, also where somebody has closed or redirected them."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {}
        for number in range(3):
            with contextlib.suppress(OSError):
                self.kept[number] = os.dup(number)

    def changed(self) -> list[int]:
        """Return the numbers that lead elsewhere now."""
        return [number for number, kept in self.kept.items() if _identity(number) != _identity(kept)]

    def restore(self) -> None:
        """Let all three lead to where they led."""
        for number in self.changed():
            os.dup2(self.kept[number], number)

    def close(self) -> None:
        """Close the duplicates."""
        for kept in self.kept.values():
            with contextlib.suppress(OSError):
                os.close(kept)
        self.kept = {}

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        for kept in self.kept.values():
            close(kept)  # the name `os` may be gone when the interpreter ends


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _Running(frozenset[Any]):
    """Threads or processes that run; fewer of them are no change."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, later: object) -> bool:
        return isinstance(later, _Running) and not later - self

    def __ne__(self, later: object) -> bool:
        return not self == later


def _threads() -> _Running:
    """Return the threads of Python that run, but for those of progress bars and of our own."""
    own = ("tqdm", "unmemorize", "rich")
    return _Running(
        thread for thread in threading.enumerate()
        if thread.is_alive() and type(thread).__module__.partition(".")[0] not in own
        and not thread.name.startswith("unmemorize")
    )  # fmt: skip


def _wait_for(before: _Running) -> None:
    """Give threads that are about to end the time to do so; nothing can end the others."""
    for thread in _threads() - before:
        thread.join(0.1)


def _children() -> _Running:
    """Return the numbers of the processes that this one has started and that still run."""
    found: set[int] = set()
    listing = list(Path("/proc/self/task").glob("*/children")) if sys.platform == "linux" else []
    for path in listing:
        with contextlib.suppress(OSError):  # a thread that has just ended
            found.update(map(int, path.read_text().split()))
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    return _Running(found - {getattr(tracker, "_pid", None)})


def _end_children(before: _Running) -> None:
    """End processes that a plugin has left; nobody waits for them."""
    for child in _children() - before:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


ENVIRONMENT = Shared("the environment variable {} was changed", _environment, _set_environment)
SYS_PATH = Shared("sys.path was changed", lambda: list(sys.path),
                  lambda before: operator.setitem(sys.path, slice(None), before))  # fmt: skip
THREADS = Shared("a thread was started that still runs", _threads, _wait_for)
CHILDREN = Shared("a process was started that still ran", _children, _end_children)
FILES = Shared(f"more than {_OpenFiles.few} files were left open", _files, lambda _: gc.collect())


def python(_sys: Any) -> tuple[Shared, ...]:
    """Return what belongs to Python and to the process itself."""
    return (
        Shared("the limit {} was changed", _limits, _set_limits),  # first: the others open files to look
        Shared("Python's global random generator was used", random.getstate, random.setstate, generator=True),
        Shared("the working folder was changed", _folder, os.chdir),
        Shared("sys.{} was replaced", _of_sys(*_STREAMS, *_HOOKS), _set_sys),
        Shared("filters for all warnings were set", _broad_filters, _set_broad_filters),
        Shared("the handler of {} was replaced", _handlers, _set_handlers),
        Shared("a timer was left running", _timers, _set_timers),
        Shared("the locale was changed", lambda: locale.setlocale(locale.LC_ALL),
               lambda before: locale.setlocale(locale.LC_ALL, before)),
        Shared("the recursion limit was changed", sys.getrecursionlimit, sys.setrecursionlimit),
        Shared("a trace function was set", lambda: Held((sys.gettrace(),)), lambda before: sys.settrace(*before)),
        Shared("a profile function was set", lambda: Held((sys.getprofile(),)), lambda before: sys.setprofile(*before)),
        Shared("garbage collection was switched", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        Shared("the thresholds of garbage collection were changed", gc.get_threshold,
               lambda before: gc.set_threshold(*before)),
        Shared("the mode of new files (umask) was changed", _umask, os.umask),
        SYS_PATH,
        ENVIRONMENT,
        THREADS,
        CHILDREN,
        FILES,
    )  # fmt: skip


def numpy(numpy: Any) -> tuple[Shared, ...]:
    """Return what belongs to numpy."""

    def read() -> tuple[Any, ...]:
        name, keys, *rest = numpy.random.get_state()
        return name, keys.tobytes(), *rest

    def write(before: tuple[Any, ...]) -> None:
        numpy.random.set_state((before[0], numpy.frombuffer(before[1], dtype=numpy.uint32), *before[2:]))

    return (
        Shared("numpy's global random generator was used", read, write, generator=True),
        Shared(
            "how numpy treats {} in floating-point numbers was changed", numpy.geterr, lambda kept: numpy.seterr(**kept)
        ),
    )


_TINY = float.fromhex("0x1p-1074")


def torch(torch: Any) -> tuple[Shared, ...]:
    """Return what belongs to torch."""
    return (*_modes(torch), *_switches(torch))


def _modes(torch: Any) -> Iterator[Shared]:
    """Yield what decides about what the next operation does."""
    module = torch.nn.modules.module
    kinds = ("cpu", "cuda", "mps", "xpu")

    def hooks() -> dict[str, dict[Any, Any]]:
        return {name: dict(value) for name, value in vars(module).items() if name.endswith("_hooks")}

    def set_hooks(before: Mapping[str, dict[Any, Any]]) -> None:
        for name, value in before.items():
            current = getattr(module, name)
            current.clear()
            current.update(value)

    yield from (
        Shared("torch's global random generator was used", lambda: torch.get_rng_state().numpy().tobytes(),
               lambda before: torch.set_rng_state(torch.frombuffer(bytearray(before), dtype=torch.uint8)),
               generator=True),
        Shared("torch's default dtype was changed", torch.get_default_dtype, torch.set_default_dtype),
        Shared("torch's default device was changed", torch.get_default_device,
               lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
        Shared("torch's grad mode was changed", torch.is_grad_enabled, torch.set_grad_enabled),
        Shared("torch's inference mode was changed", torch.is_inference_mode_enabled),
        Shared("autocast of {} was changed",
               lambda: {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds},
               lambda before: [(torch.set_autocast_enabled(kind, on), torch.set_autocast_dtype(kind, dtype))
                               for kind, (on, dtype) in before.items()]),
        Shared("hooks on all modules (torch.nn.modules.module) were left behind", lambda: tuple(hooks().items()),
               lambda before: set_hooks(dict(before)), code=True),
        *(_stack(torch, kind) for kind in ("function", "dispatch")),
        _saved_tensor_hooks(torch._C._autograd),
    )  # fmt: skip


def _stack(torch: Any, kind: str) -> Shared:
    """Return the stack of modes that see every call (`function`) or operation (`dispatch`); a device is none of them.

    The default device stands on the stack of functions, too, and is looked at by itself.
    """
    length = getattr(torch._C, f"_len_torch_{kind}_stack")
    at = getattr(torch._C, "_get_function_stack_at" if kind == "function" else "_get_dispatch_stack_at")
    modes = torch.overrides if kind == "function" else torch.utils._python_dispatch

    def is_device(mode: Any) -> bool:
        return type(mode).__module__ == "torch.utils._device"

    def read() -> Held:
        return Held(mode for mode in map(at, range(length())) if not is_device(mode))

    def write(before: Held) -> None:
        there = [modes._pop_mode() for _ in range(length())][::-1]
        for mode in [*filter(is_device, there), *before]:
            modes._push_mode(mode)

    return Shared(f"a {kind} mode of torch was entered or left", read, write, code=True)


def _saved_tensor_hooks(autograd: Any) -> Shared:
    def read() -> Held:
        return Held(autograd._top_saved_tensors_default_hooks(True) or ())  # noqa: FBT003  while tracing, too

    def write(before: Held) -> None:
        while (top := read()) and top != before:
            autograd._pop_saved_tensors_default_hooks()
        if before and not top:
            autograd._push_saved_tensors_default_hooks(*before)

    return Shared("hooks on saved tensors were left behind", read, write, code=True)


def _switches(torch: Any) -> Iterator[Shared]:
    """Yield what decides about how operations are computed."""
    cudnn, cuda, mkldnn = torch.backends.cudnn, torch.backends.cuda, torch.backends.mkldnn
    kernels = ("flash", "mem_efficient", "math", "cudnn")

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def anomaly() -> tuple[bool, bool]:
        return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def set_flags(before: Mapping[str, Any]) -> None:
        for name in ("deterministic", "benchmark", "enabled"):
            setattr(cudnn, name, before[f"cudnn.{name}"])

    yield from (
        Shared("torch's number of threads was changed", torch.get_num_threads, torch.set_num_threads),
        Shared("torch's number of threads between operations was changed", torch.get_num_interop_threads),
        Shared("torch's switch for deterministic algorithms was changed", deterministic,
               lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1])),
        Shared("torch's precision of matrix products was changed",
               torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        Shared("torch's anomaly detection was changed", anomaly,
               lambda before: torch.autograd.set_detect_anomaly(*before)),
        Shared("torch's switch {} was changed",
               lambda: {f"cudnn.{name}": getattr(cudnn, name) for name in ("deterministic", "benchmark", "enabled")},
               set_flags),
        Shared("torch's switch for oneDNN was changed", lambda: mkldnn.enabled,
               mkldnn.set_flags),
        Shared("torch's switch for {} attention was changed",
               lambda: {name: getattr(cuda, f"{name}_sdp_enabled")() for name in kernels},
               lambda before: [getattr(cuda, f"enable_{name}_sdp")(on) for name, on in before.items()]),
        Shared("torch's switch for tiny numbers (denormal) was changed", lambda: _TINY * 1.0 == 0.0,
               torch.set_flush_denormal),
    )  # fmt: skip
