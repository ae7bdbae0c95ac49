"""What a method is given beside its testbed (randomness, time, progress, shared work), and what it leaves behind."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from unmemorize.contracts.shared_work import Done, SharedWork
from unmemorize.errors import DeadlineExceeded

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.method import Method

T = TypeVar("T")

Phase = Literal["prepare", "attribute", "train", "edit"]
PHASES: tuple[Phase, ...] = ("prepare", "attribute", "train", "edit")


class Progress(Protocol):
    """Where progress is shown; the default shows nothing."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Open one line of progress; call the result with the number of steps done."""


class Silent:
    """Progress that shows nothing."""

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Open a line that nobody sees."""
        yield lambda _: None


def derived_seed(seed: int, *labels: object) -> int:
    """Return a 63-bit seed that depends on `seed` and every label, and on nothing else."""
    text = repr((seed, *[str(label) for label in labels])).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@dataclass(slots=True)
class MethodReport:
    """What a method leaves behind beside the edited model; it becomes part of the record."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds charged so far, by phase."""
    notes: dict[str, Any] = field(default_factory=dict)
    """JSON-ready facts about what was done (ties, steps, sizes)."""
    flags: set[str] = field(default_factory=set)
    """Flags that the board shows on the row (`approximate-attribution`)."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Headline metrics after each epoch."""
    decoding: tuple[Any, ...] = ()
    """Logits processors of a decode-time method: metrics then go through them."""
    paused: float = 0.0
    """Seconds spent on measuring, which are not charged."""

    def charge(self, phase: Phase, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


@dataclass(slots=True)
class Context:
    """What a provider or a method is given beside its data; what it leaves goes into `report`.

    `Context(seed=0)` is enough in tests and notebooks.
    """

    seed: int = 0
    """The source of all randomness; `generator` draws on it."""
    progress: Progress = field(default_factory=Silent)
    """Where progress is shown; `track` does."""
    deadline: float | None = None
    """Seconds that the method may take, or none."""
    cache: Path | None = None
    """A folder that outlives the run, or none."""
    device: str = "cpu"
    """The device that models run on."""
    checkpointing: bool = False
    """Whether blocks recompute their activations in backward passes while a method acts: less memory, more time.

    Hooks of a method must then stay until its backward pass has ended.
    """
    offload: bool = False
    """Whether scores, masks and copies of weights are kept in main memory instead of beside the weights."""
    synchronize: Callable[[], None] = lambda: None
    """Waits for the device, so that seconds are true."""
    measure: Callable[[PreTrainedModel | None], dict[str, float]] | None = None
    """Measures the headline metrics of a model (by default the testbed's); not charged to the method."""
    train_again: Callable[[Method], None] | None = None
    """Trains the testbed's model from scratch under a regularizer; none where that makes no sense."""
    shared_work: SharedWork = field(default_factory=SharedWork)
    """What `shared` has computed on this testbed."""
    started: float = field(default_factory=time.perf_counter)
    """When the method started, on the clock of `time.perf_counter`."""
    report: MethodReport = field(default_factory=MethodReport)
    """What the method leaves behind."""

    def generator(self, *labels: object, device: str = "cpu") -> torch.Generator:
        """Return a fresh random generator that depends on the cell's seed and the labels."""
        import torch

        return torch.Generator(device=device).manual_seed(derived_seed(self.seed, *labels))

    def row_generator(self, purpose: str) -> torch.Generator:
        """Return the generator that draws rows of the user's data for a purpose: `forget`, `holdout`, ...

        Its label names nobody, so that every provider and `mitigate` draw the same rows of the same data.
        """
        return self.generator("rows", purpose)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Charge what happens inside to `phase`, waiting for the device at both ends; measuring is not charged."""
        self.synchronize()
        begin, paused = time.perf_counter(), self.report.paused
        try:
            yield
        finally:
            self.synchronize()
            self.report.charge(phase, time.perf_counter() - begin - (self.report.paused - paused))

    def shared(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return `compute()`, done once per testbed for each key; every user is charged its full seconds.

        Only the latest value is kept, so that memory does not grow with the grid; one that somebody has written into
        is computed again.
        """
        report = self.report
        done = self.shared_work.find(key)
        if done is None:
            begin, flags = report.seconds.get("attribute", 0.0), set(report.flags)
            with self.timed("attribute"):
                value = compute()
            spent = report.seconds["attribute"] - begin
            self.shared_work.keep(key, Done(value, frozenset(report.flags - flags), spent))
            return value
        report.flags |= done.flags
        report.charge("attribute", done.seconds)
        found: T = done.value
        return found

    def place_of(self, weight: Tensor) -> torch.device:
        """Return where to keep scores, masks and copies of a weight: beside it, or in main memory under `offload`."""
        import torch

        return torch.device("cpu") if self.offload else weight.device

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` while showing progress and keeping the deadline.

        Raises:
            DeadlineExceeded: the method has used up its time.
        """
        size = len(items) if total is None and isinstance(items, Sized) else total
        with self.progress.task(description, size) as advance:
            for item in items:
                self.check_deadline(description)
                yield item
                advance(1)

    def check_deadline(self, where: str = "the method") -> None:
        """Raise `DeadlineExceeded` once the method has used up its time."""
        if self.deadline is not None and self.elapsed() > self.deadline:
            raise DeadlineExceeded(self.deadline, where)

    def elapsed(self) -> float:
        """Return the seconds since the method started, without those spent on measuring."""
        return time.perf_counter() - self.started - self.report.paused

    def curve_point(self, epoch: int, model: PreTrainedModel | None = None) -> None:
        """Measure the headline metrics after an epoch and add them to the curve, off the clock.

        Args:
            epoch: passes over the data so far.
            model: the model that is being trained, where it is not yet the testbed's.
        """
        if self.measure is None:
            return
        self.synchronize()
        begin = time.perf_counter()
        self.report.curve.append({"epoch": float(epoch), **self.measure(model)})
        self.report.paused += time.perf_counter() - begin
