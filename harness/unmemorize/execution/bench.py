"""A loaded testbed on which cells are run one after another, and put back as it was after each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unmemorize.contracts.context import Context, Progress, Silent, derived_seed
from unmemorize.contracts.method import Method
from unmemorize.contracts.metric import Metric
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.editing.checkpointing import checkpointed_blocks
from unmemorize.editing.edits import Changes, Reference, gradients_of
from unmemorize.errors import DivergedError, LayoutError, NoOpError, PluginError
from unmemorize.evaluation import evaluate
from unmemorize.evaluation.evaluate import Measured, Slot
from unmemorize.execution.environment import synchronize
from unmemorize.execution.estimate import advice_for, needed
from unmemorize.execution.memory import MemoryPeak, memory_peak
from unmemorize.execution.probe import activation_bytes
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
    checkpointing: bool = False
    """Whether blocks are computed again in backward passes, also where the testbed does not ask for it."""
    offload: bool = False
    """Whether scores, masks and copies of weights wait in main memory, also where the testbed does not ask for it."""

    def apply_to(self, testbed: Testbed) -> None:
        """Tell a testbed how to save memory here."""
        testbed.checkpointing |= self.checkpointing
        testbed.offload |= self.offload


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
    decoding: tuple[Any, ...] = ()
    """Logits processors of a decode-time method."""


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
        surroundings.apply_to(testbed)
        self.reference = Reference(testbed.model)
        self._shared: dict[Any, tuple[Any, float]] = {}
        self._warm = False
        self._activations: dict[bool, float] = {}
        """Bytes per token that wait for a backward pass, when training and otherwise."""

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
            Skipped: the method does not apply to this testbed, or what it declares to need is not free.
            NoOpError: it changed nothing.
            DivergedError: it left parameters that are not finite.
            PluginError: it left a state dict of another shape.
        """
        reason = method.supports(self.testbed)
        if reason is not None:
            raise Skipped(reason)
        view = self.testbed.shown_to(method.name, method.needs)
        self._check_fits(method, view)
        self._warm_up()
        context = self._context(method, seed, view, provider)
        with memory_peak(self.surroundings.device) as memory, _seeded(context.seed), self._checkpointed(method):
            total = _timed_apply(method, view, context)
        changes = self._check(method, view)
        after = self.measure(_whole(self.testbed, view))
        return Outcome(after, context, total, memory, changes.edited, changes.parameters, view.decoding)

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

    def _check_fits(self, method: Method, view: Testbed) -> None:
        """Refuse what cannot fit before anything is spent, as far as the method says what it needs."""
        cost = method.cost(view)
        if cost is None:
            return
        training = cost.training_tokens > 0
        if cost.held_tokens and training not in self._activations:
            self._activations[training] = activation_bytes(self.testbed, training=training)
        need = needed(self.testbed, cost, self._activations.get(training, 0.0))
        if not need.fits:
            raise Skipped(need.reason(advice_for(self.testbed, cost, need)))

    def _checkpointed(self, method: Method) -> AbstractContextManager[None]:
        """Let blocks be recomputed if the testbed says so; a model that is trained again is another."""
        wanted = self.testbed.checkpointing and method.stage != "train"
        return checkpointed_blocks(self.testbed.mlps if wanted else ())

    def _warm_up(self) -> None:
        """Run one forward and backward pass that nobody times: the first one pays for kernels and buffers.

        Only the embedding takes gradients: they flow through all blocks, and are not kept for all weights.
        """
        if self._warm or len(self.testbed.forget) == 0:
            return
        model = self.testbed.model
        embedding: Any = model.get_input_embeddings()
        with gradients_of(model, [embedding.weight]), torch.enable_grad():
            sequence_losses(model, self.testbed.forget.select(slice(0, 2)).cut()).sum().backward()
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
