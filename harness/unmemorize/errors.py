"""Every error a user can meet, each in three parts: what and where, what was expected, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

from unmemorize.untrusted import plain

__all__ = [
    "BrokenPluginError",
    "CacheWarning",
    "ConfigError",
    "DataChangedError",
    "DataError",
    "DeadlineExceeded",
    "DivergedError",
    "KeptError",
    "LayoutError",
    "LeftBehindError",
    "MemoryExceeded",
    "NameCollisionError",
    "NoOpError",
    "NotFiniteError",
    "PluginError",
    "ProvenanceError",
    "RecordError",
    "ReportError",
    "SelectionError",
    "StateDictError",
    "StoreError",
    "TestbedChangedError",
    "UndeclaredNeedError",
    "UnknownNameError",
    "UnmemorizeError",
    "UnwritableError",
    "listed",
    "nearest",
    "said_by",
]


_LONGEST = 4_000
"""Characters of each part of an error: names and reasons that are shown may come from anywhere."""


def nearest(name: str, available: Iterable[str], *, most: int = 8) -> list[str]:
    """Return `available`, the names most like `name` first, at most `most` of them."""
    names = sorted(set(available))
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.5)
    return (close + [other for other in names if other not in close])[:most]


def listed(items: Sequence[str], most: int = 3) -> str:
    """Return items in words, the first few of them by name."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def said_by(error: BaseException) -> str:
    """Return the text of an error; what it raises instead is told."""
    try:
        return str(error)
    except BaseException as second:  # an error of a plugin may raise anything
        return f"(its text raised {type(second).__name__})"


class UnmemorizeError(Exception):
    """An error that a user can correct.

    Args:
        what: what is wrong, and where.
        expected: what was expected or is available, near names first.
        fix: what to type next.
    """

    status: ClassVar[int] = 2
    """The status with which a command ends."""

    def __init__(self, what: str, *, expected: str, fix: str) -> None:
        self.what, self.expected, self.fix = (plain(part, _LONGEST) for part in (what, expected, fix))
        super().__init__(f"{self.what}\n  expected: {self.expected}\n  fix: {self.fix}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.expected, self.fix)


def _rebuild(kind: type[UnmemorizeError], what: str, expected: str, fix: str) -> UnmemorizeError:
    error = kind.__new__(kind)
    UnmemorizeError.__init__(error, what, expected=expected, fix=fix)
    return error


class CacheWarning(UserWarning):
    """Something in the cache that is not used, or cannot be written: the work is done, and done again next time."""


class ConfigError(UnmemorizeError):
    """A suite, an override or a config that does not validate."""


class DataError(UnmemorizeError):
    """Sequences or files that cannot be used as they are."""


class UnwritableError(DataError):
    """A place that cannot be written."""


class KeptError(UnwritableError):
    """A place that cannot be written, when the work is done and most of it is kept."""

    status = 1


class StoreError(UnmemorizeError):
    """A results folder that cannot be read or written."""


class RecordError(UnmemorizeError):
    """What came of a cell cannot be recorded, since nobody could read it or believe it."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(
            f"what came of {method!r} cannot be recorded: {reason}",
            expected="numbers in their metric's range, counts and seconds that are not negative, notes that are JSON",
            fix=f"correct the plugin that left it: unmemorize check {method}",
        )


class PluginError(UnmemorizeError):
    """A plugin that cannot be loaded or breaks its contract."""

    @classmethod
    def raised(cls, where: str, error: BaseException) -> PluginError:
        """Build the error for a plugin's code that raised something of its own, at a place that is given in words."""
        return cls(
            f"{where} raised {type(error).__name__}: {said_by(error)}",
            expected="no error, or one of `unmemorize.errors` that says what to do",
            fix="correct that plugin, or leave it out; `unmemorize plugins` shows where it comes from",
        )


class BrokenPluginError(PluginError):
    """Something was asked of a plugin that failed to load."""


class NoOpError(UnmemorizeError):
    """A method reported success without changing anything."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"method {method!r} ended without changing a single parameter or the decoding",
            expected="a changed model: an unedited model's numbers are never printed as a method's",
            fix=f"raise its strength, e.g. --set ratio=0.01 (`unmemorize show {method}` lists its settings)",
        )


class UnknownNameError(UnmemorizeError):
    """A name that nothing registered; `broken` lists plugins that failed to load and may have held it."""

    def __init__(
        self,
        kind: str,
        name: str,
        available: Iterable[str],
        *,
        where: str = "",
        broken: Iterable[str] = (),
        fix: str = "",
    ) -> None:
        names = nearest(name, available)
        place = f" in {where}" if where else ""
        expected = f"one of {', '.join(names)}" if names else f"a registered {kind}; none is"
        super().__init__(
            f"no {kind} is called {name!r}{place}",
            expected=expected + _broken_note(broken),
            fix=fix or f"`unmemorize list {_plural(kind)}` shows all of them; `unmemorize plugins` their origins",
        )


class NameCollisionError(PluginError):
    """Two plugins that register one name."""

    def __init__(self, kind: str, name: str, origins: Iterable[str]) -> None:
        places = " and ".join(sorted(origins))
        super().__init__(
            f"the {kind} name {name!r} is registered by {places}",
            expected="one origin per name, so that the order of installation never decides a benchmark",
            fix="rename or uninstall one of them, or set UNMEMORIZE_PLUGINS=none (or to a list of plugins)",
        )


class LayoutError(UnmemorizeError):
    """An architecture without a layout, or that a row of the table of layouts describes wrongly."""

    @classmethod
    def unknown(cls, model_type: str, available: Iterable[str], *, broken: Iterable[str] = ()) -> LayoutError:
        """Build the error for a model type without a row."""
        names = ", ".join(nearest(model_type, available, most=40))
        return cls(
            f"no layout is registered for model type {model_type!r}",
            expected=(f"one of {names}" if names else "a registered layout; none is") + _broken_note(broken),
            fix=_ADD_LAYOUT,
        )

    @classmethod
    def unfound(cls, model_type: str, reason: str) -> LayoutError:
        """Build the error for a model type without a row whose structure does not tell where its MLPs are."""
        return cls(
            f"no layout is registered for model type {model_type!r}, and its structure does not tell: {reason}",
            expected="a registered layout, or blocks that each have an MLP of one or two linear maps and a last one",
            fix=_ADD_LAYOUT,
        )

    @classmethod
    def of_row(cls, model_types: Iterable[str], problem: str) -> LayoutError:
        """Build the error for a row that does not fit a model."""
        return cls(
            f"the layout of {', '.join(model_types)} does not fit this model: {problem}",
            expected="names of the model's own `named_modules()` and `named_parameters()`, without a final `.weight`",
            fix="correct the row that `register_layouts` returns",
        )


_ADD_LAYOUT = "return a `Layout` from the hook `register_layouts` of a plugin: docs/hooks/register_layouts.md"


class SelectionError(UnmemorizeError):
    """A selection of neurons or weights that cannot be made."""

    @classmethod
    def empty(cls, ratio: float, units: int, where: str) -> SelectionError:
        """Build the error for a ratio that selects nothing out of `units`."""
        smallest = 1 / units if units else 1.0
        return cls(
            f"ratio {ratio:g} selects 0 of {units} units in {where}",
            expected=f"a ratio of at least {smallest:.3g} there (one unit)",
            fix=f"set ratio={smallest:.3g} or more, or scope='global' to select over the whole model",
        )

    @classmethod
    def not_finite(cls, where: str) -> SelectionError:
        """Build the error for scores that hold NaN."""
        return cls(
            f"the scores of {where} hold NaN",
            expected="a finite score for every unit",
            fix="look at the loss on the forget set: lower the learning rate or use float32",
        )


class DivergedError(UnmemorizeError):
    """Optimization that left the finite numbers."""

    def __init__(self, where: str, step: int) -> None:
        super().__init__(
            f"{where} diverged: the loss is not finite at step {step}",
            expected="a finite loss at every step",
            fix="lower its learning rate or number of epochs (`unmemorize show METHOD` lists the settings)",
        )

    @classmethod
    def left(cls, method: str, names: Sequence[str]) -> DivergedError:
        """Build the error for a method that left NaN or infinity in the tensors of these names."""
        error = cls.__new__(cls)
        UnmemorizeError.__init__(
            error,
            f"method {method!r} left values that are not finite in {listed(names)}",
            expected="finite weights",
            fix="guard divisions and logarithms, accumulate in float32, lower the learning rate",
        )
        return error


class NotFiniteError(UnmemorizeError):
    """Logits or weights that are NaN or infinite before anything is done to a model."""

    def __init__(self, where: str, dtype: str, broken: Sequence[str]) -> None:
        weights = f": its own weights hold NaN or infinity in {listed(broken)}" if broken else ""
        half = dtype == "float16"
        fix = _WIDER if half or not (broken or dtype == "float32") else _BROKEN
        super().__init__(
            f"the model's logits are not finite ({where}, {dtype}){weights}",
            expected="finite logits before anything is done to a model"
            + (": float16 ends at 65504, and this model goes beyond" if half else ""),
            fix=fix,
        )

    @classmethod
    def of_weights(cls, dtype: str, broken: Sequence[str]) -> NotFiniteError:
        """Build the error for a model that comes with NaN or infinity in the weights of these names."""
        error = cls.__new__(cls)
        UnmemorizeError.__init__(
            error,
            f"the model's own weights hold NaN or infinity in {listed(broken)} ({dtype})",
            expected="finite weights before anything is done to a model",
            fix=f"{_WIDER}; or {_BROKEN}" if dtype == "float16" else _BROKEN,
        )
        return error


_WIDER = (
    "dtype = 'float32' (or 'bfloat16') in a suite, `unmemorize mitigate` and `unmemorize find` with --dtype float32, "
    "in Python model.float()"
)
_BROKEN = "save or download the model again, or name another: it is broken as it is"


class ReportError(PluginError):
    """A method whose report cannot be recorded."""

    def __init__(self, method: str, what: str) -> None:
        super().__init__(
            f"method {method!r}: {what}",
            expected="notes of numbers, texts, lists and tables; flags that are texts; a tuple of processors",
            fix="convert with float(...), int(...) or .tolist(); write e.g. `with context.timed('edit'):`",
        )


class StateDictError(PluginError):
    """A method that left a model of another shape than it was given."""

    def __init__(self, method: str, what: str) -> None:
        super().__init__(
            f"method {method!r} left another model: {what}",
            expected="an ordinary instance of the model's own class, so that plain transformers loads it",
            fix="remove wrappers, buffers and parametrizations before `apply` returns; write into `parameter.data`",
        )


class LeftBehindError(PluginError):
    """A plugin that left hooks or patches on the model, so that it is not the weights that were measured."""

    def __init__(self, who: str, left: Sequence[str]) -> None:
        super().__init__(
            f"{who} left something on the model: {listed(left)}",
            expected="an edit of the weights alone, and none by a metric: hooks and patches are in no saved model",
            fix="remove each handle, restore `forward`s and attributes, in `try: ... finally:` before it returns",
        )


class DataChangedError(PluginError):
    """A plugin that wrote into the sequences of its testbed."""

    def __init__(self, who: str, sets: list[str]) -> None:
        super().__init__(
            f"{who} changed sequences in place: {listed(sets)} (they are restored)",
            expected="the data as they were: every method is shown and measured on the same",
            fix="work on `.clone()`, on `sequences.select(...)`, or with `dataclasses.replace(...)`",
        )


class TestbedChangedError(PluginError):
    """A plugin after which the testbed or the process is not what it was, and cannot be restored."""

    __test__ = False  # pytest: a testbed, and no test class

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__(
            f"left the testbed changed: {listed(left)}",
            expected="model, data and process as they were: other cells use them",
            fix="end threads and processes, close files and undo patches in `try: ... finally:` before `apply` returns",
        )


class DeadlineExceeded(UnmemorizeError):  # noqa: N818 - named as the standard library names its timeouts
    """A cell that ran out of the time it was given."""

    def __init__(self, seconds: float, where: str) -> None:
        super().__init__(
            f"{where} ran past its deadline of {seconds:g} s",
            expected=f"a cell that ends within {seconds:g} s",
            fix="give it more time with --deadline SECONDS, or choose a cheaper configuration",
        )


class MemoryExceeded(UnmemorizeError):  # noqa: N818 - named as the one above
    """A cell that took more memory than it was given."""

    def __init__(self, limit: int, used: int, where: str) -> None:
        super().__init__(
            f"{where} took {used / 2**30:.3g} GiB of memory, more than its limit of {limit / 2**30:.3g} GiB",
            expected="a worker process that stays below the limit, libraries and testbed included",
            fix="give it more with --memory BYTES (4GiB, 500MB), or choose a cheaper configuration",
        )


class ProvenanceError(UnmemorizeError):
    """Something that runs is not what was planned."""

    @classmethod
    def of_plugin(cls, kind: str, name: str, planned: str, here: str) -> ProvenanceError:
        """Return the error for a plugin that is another one where it runs."""
        return cls(
            f"the {kind} {name!r} is ({here}) where it runs, and was ({planned}) when the run was planned",
            expected="the same code of every plugin from the plan to the last cell, in every process",
            fix="leave plugin files alone while they run, install one version everywhere; then run it again",
        )

    @classmethod
    def of_files(cls, testbed: str, names: Sequence[str]) -> ProvenanceError:
        """Return the error for files of a testbed that have changed since the plan."""
        return cls(
            f"testbed {testbed!r}: {listed(names)} changed after the run was planned",
            expected="the same files from the plan to the last cell, on every machine",
            fix="leave the files alone while they are used, then run the same command again",
        )

    @classmethod
    def of_data(cls, testbed: str) -> ProvenanceError:
        """Return the error for a testbed with other data than its base was measured on."""
        return cls(
            f"testbed {testbed!r}: its sequences are not those on which its base was measured",
            expected="the same data each time that a provider loads a testbed with the same settings and seed",
            fix="derive every random choice of `load` from `context.seed`, and name files in `fingerprint`",
        )


class UndeclaredNeedError(PluginError):
    """A method that used data it did not declare."""

    def __init__(self, method: str, need: str, declared: Iterable[str]) -> None:
        listed, hidden = ", ".join(sorted(declared)) or "nothing", need in ("holdouts", "forget_unseen")
        super().__init__(
            f"method {method!r} used {need!r}, which it does not declare; it declares {listed}",
            expected=("" if hidden else f"{need!r} in `needs`, or ")
            + "no use of it: boards compare methods by what they were shown",
            fix=f"leave `testbed.{need}` alone: no method is shown what it is measured on"
            if hidden
            else f'add "{need}" to `needs` of the class that defines {method!r}',
        )


def _broken_note(broken: Iterable[str]) -> str:
    listed = ", ".join(sorted(broken))
    return f" (not loaded, because broken: {listed})" if listed else ""


def _plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"
