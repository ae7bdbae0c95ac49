"""A loaded testbed on which cells are run one after another, and put back as it was after each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unmemorize.contracts.context import Context, Progress, Silent, derived_seed
from unmemorize.contracts.method import Method
from unmemorize.contracts.metric import Metric
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.editing.edits import Changes, Reference
from unmemorize.errors import DivergedError, LayoutError, NoOpError, PluginError
from unmemorize.evaluation import evaluate
from unmemorize.evaluation.evaluate import Measured, Slot
from unmemorize.execution.environment import synchronize
from unmemorize.execution.memory import MemoryPeak, memory_peak
from unmemorize.training.losses import sequence_losses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from unmemorize.registry.manager import Registry


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and how cells run: everything that is not part of their key."""

    device: str = "cpu"
    deadline: float | None = None
    """Seconds that a method may take."""
    cache: Path | None = None
    progress: Progress = field(default_factory=Silent)


class Headline(NamedTuple):
    """The two metrics that rows are chosen and ranked by."""

    memorization: Metric
    utility: Metric


class Outcome(NamedTuple):
    """What a method did to a testbed."""

    after: dict[Slot, Measured]
    context: Context
    total_seconds: float
    memory: MemoryPeak
    edited: int
    parameters: int


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """A method that does not apply, with the reason."""


class Bench:
    """A loaded testbed, its metrics, and a reference of its weights.

    Memory: the model, and one copy of its state on the CPU.
    """

    def __init__(
        self, testbed: Testbed, metrics: Sequence[Metric], headline: Headline, surroundings: Surroundings
    ) -> None:
        self.testbed, self.metrics, self.headline, self.surroundings = (
            testbed,
            metrics,
            headline,
            surroundings,
        )
        self.reference = Reference(testbed.model)
        self._shared: dict[Any, tuple[Any, float]] = {}
        self._warm = False

    def measure(self, testbed: Testbed | None = None) -> dict[Slot, Measured]:
        """Return every value of every metric."""
        return evaluate(testbed or self.testbed, self.metrics, Context(progress=self.surroundings.progress))

    def try_method(self, method: Method, seed: int, provider: ModelProvider | None = None) -> Outcome:
        """Let `method` act, measure, and put the testbed back, whatever happens; raises what `act` raises."""
        try:
            return self.act(method, seed, provider)
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Restore the weights of the testbed's model, wherever they were changed."""
        self.reference.restore(self.testbed.model)
        self.testbed.model.eval()

    def act(self, method: Method, seed: int, provider: ModelProvider | None = None) -> Outcome:
        """Let `method` act on the testbed's model, and measure what it did.

        Raises:
            Skipped: the method does not apply to this testbed.
            NoOpError: it changed nothing.
            DivergedError: it left parameters that are not finite.
            PluginError: it left a state dict of another shape.
        """
        reason = method.supports(self.testbed)
        if reason is not None:
            raise Skipped(reason)
        self._warm_up()
        view = self.testbed.shown_to(method.name, method.needs)
        context = self._context(method, seed, view, provider)
        with memory_peak(self.surroundings.device) as memory, _seeded(context.seed):
            total = _timed_apply(method, view, context)
        changes = self._check(method, view)
        after = self.measure(_whole(self.testbed, view))
        return Outcome(after, context, total, memory, changes.edited, changes.parameters)

    def _context(self, method: Method, seed: int, view: Testbed, provider: ModelProvider | None) -> Context:
        context = Context(
            seed=derived_seed(seed, method.name),
            progress=self.surroundings.progress,
            deadline=self.surroundings.deadline,
            cache=self.surroundings.cache,
            device=self.surroundings.device,
            synchronize=lambda: synchronize(self.surroundings.device),
            shared_work=self._shared,
        )

        def train_again(regularizer: Method) -> None:
            assert provider is not None
            again = dataclasses.replace(context, seed=seed)
            view.model = provider.train(self.testbed, regularizer, again)
            context.paused = again.paused

        def measure(model: PreTrainedModel | None) -> dict[str, float]:
            whole = _whole(self.testbed, view)
            return self._headline(whole if model is None else dataclasses.replace(whole, model=model))

        context.measure = measure
        context.train_again = train_again if provider is not None and provider.trains() else None
        return context

    def _headline(self, testbed: Testbed) -> dict[str, float]:
        values = evaluate(testbed, self.headline)
        memorization = Slot(self.headline.memorization.label(testbed), "forget", "all")
        utility = Slot(self.headline.utility.label(testbed), "holdout", "all")
        return {slot.metric: values[slot].measurement.value for slot in (memorization, utility) if slot in values}

    def _check(self, method: Method, view: Testbed) -> Changes:
        if not self.reference.same_keys(view.model):
            raise PluginError(
                f"method {method.name!r} left a model with other state-dict keys, shapes or dtypes",
                expected="an ordinary instance of the model's own class, so that it can be saved and reloaded",
                fix="remove wrappers and parametrizations before `apply` returns",
            )
        for name, parameter in view.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise DivergedError(f"method {method.name!r} (parameter {name})", 0)
        changes = self.reference.changes(view.model)
        if changes.edited == 0 and not view.decoding:
            raise NoOpError(method.name)
        return changes

    def _warm_up(self) -> None:
        """Run one forward and backward pass that nobody times: the first one pays for kernels and buffers."""
        if self._warm or len(self.testbed.forget) == 0:
            return
        with torch.enable_grad():
            sequence_losses(self.testbed.model, self.testbed.forget.select(slice(0, 2)).cut()).sum().backward()
        self.testbed.model.zero_grad(set_to_none=True)
        self._warm = True


def load_testbed(provider: ModelProvider, name: str, context: Context, registry: Registry) -> Testbed:
    """Load a testbed and fill in what the core knows about it: its MLPs and whether it can be trained again."""
    testbed = provider.load(context)
    testbed.name = name
    testbed.trainable = provider.trains()
    testbed.mlps = find_mlps(testbed.model, registry)
    testbed.model.eval()
    return testbed


def find_mlps(model: PreTrainedModel, registry: Registry) -> Any:
    """Return the MLPs of a model, or none where nobody registered its layout."""
    try:
        return registry.layout(model.config.model_type)().mlps(model)
    except LayoutError:
        return ()


def _whole(testbed: Testbed, view: Testbed) -> Testbed:
    return dataclasses.replace(testbed, model=view.model, decoding=view.decoding)


def _timed_apply(method: Method, view: Testbed, context: Context) -> float:
    """Run the method and return its seconds; what it did not charge to a phase is charged to `prepare`."""
    context.synchronize()
    context.started = time.perf_counter()
    method.apply(view, context)
    context.synchronize()
    own = sum(context.seconds.values()) - context.charged
    rest = max(0.0, context.elapsed() - own)
    context.seconds["prepare"] = context.seconds.get("prepare", 0.0) + rest
    return sum(context.seconds.values())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Give the global generators a seed of their own inside, and their former state back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
