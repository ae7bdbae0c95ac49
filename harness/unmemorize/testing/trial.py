"""Trials: a method is let act on a copy of a memorizing testbed, and everything that it does is written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from unmemorize.contracts.method import Method
from unmemorize.evaluation import Evaluation
from unmemorize.testing.memorizing import Memorizing, memorizing_testbed
from unmemorize.testing.report import Kind, NotApplicable
from unmemorize.testing.state import ModelState, alone, differences, weights_of
from unmemorize.testing.watching import Watch, WatchedContext, watched_passes, watched_sets

if TYPE_CHECKING:
    from torch import Tensor

    from unmemorize.contracts.testbed import Testbed
    from unmemorize.registry.manager import Registry
    from unmemorize.testing.models import Architecture


FEW_STEPS = 12
"""Steps after which training again ends, where only side_effects are looked at."""


@dataclass(slots=True)
class Trial:
    """What came of letting a method act."""

    testbed: Testbed
    """The testbed afterwards: all of its data, and the model and the decoding that the method left."""
    context: WatchedContext
    watch: Watch
    model_before: ModelState
    model_after: ModelState
    weights_before: dict[str, Tensor]
    data_before: dict[str, str]
    """A digest of every set."""
    global_changes: list[str]
    error: Exception | None = None

    def flaw(self) -> str | None:
        """Return the rule about the model's shape that this trial breaks, if it breaks one."""
        after = weights_of(self.testbed.model)
        if any(value.is_floating_point() and not value.isfinite().all() for value in after.values()):
            return "changes_something"
        if _shapes(after) != _shapes(self.weights_before):
            return "keeps_state_dict"
        return "removes_hooks" if differences(self.model_before.hooks, self.model_after.hooks) else None

    def data_after(self) -> dict[str, str]:
        """Return a digest of every set."""
        return digests(self.testbed)


@dataclass
class MethodCase:
    """One method with one architecture: testbeds to act on, and trials that several rules share."""

    plugin: type[Method]
    settings: dict[str, Any] = field(default_factory=dict)
    architecture: Architecture = "gpt2"
    registry: Registry | None = None
    rule_names: tuple[str, ...] = ()
    architectures: tuple[Architecture, ...] = ()
    """All that it is checked on, this one among them."""
    kind: ClassVar[Kind] = "method"

    def __post_init__(self) -> None:
        self.architectures = self.architectures or (self.architecture,)

    @property
    def name(self) -> str:
        """What the method is called."""
        return str(getattr(self.plugin, "name", self.plugin.__name__))

    def testbed(self, dtype: torch.dtype = torch.float32) -> Testbed:
        """Return a testbed of one's own."""
        return memorizing_testbed(self.architecture, dtype=dtype, registry=self.registry)

    def method(self) -> Method:
        """Return the method with its settings."""
        return self.plugin(**self.settings)

    @cached_property
    def refusal(self) -> str | Exception | None:
        """What `supports` says about the whole testbed: a reason against it, nothing, or the error that it raises."""
        return self.answer(self.testbed())

    def refused_everywhere(self) -> bool:
        """Whether `supports` has something against the tiny testbed of every architecture."""
        cases = (dataclasses.replace(self, architecture=other) for other in self.architectures)
        return all(isinstance(case.refusal, str) for case in cases)

    def answer(self, testbed: Testbed) -> str | Exception | None:
        """Return what `supports` says about a testbed, or the error that it raises."""
        with alone():
            try:
                return self.method().supports(testbed)
            except Exception as error:  # whatever a third party's code raises is a finding
                return error

    @cached_property
    def attempt(self) -> Trial:
        """The plain trial, that may have failed.

        Raises:
            NotApplicable: `supports` refuses the testbed.
        """
        if isinstance(self.refusal, Exception):
            raise NotApplicable("`supports` raises an error; see honest_supports")
        if self.refusal is not None:
            raise NotApplicable(f"`supports` says: {self.refusal}")
        return self.run(self.testbed(), briefly=not self.leading)

    def cost(self, watch: Watch) -> Any:
        """Return what the method says that it takes on the tiny testbed, shown only what it declares."""
        testbed, method = self.testbed(), self.method()
        embedding: Any = testbed.model.get_input_embeddings()
        with alone(), watched_passes(watch, embedding.num_embeddings):
            return method.cost(testbed.shown_to(self.name, frozenset(method.needs)))

    @property
    def leading(self) -> bool:
        """Whether this is the architecture on which the method is let train to the end."""
        return self.architecture == self.architectures[0]

    @property
    def trains_again(self) -> bool:
        """Whether the method acts by training the model again."""
        return self.attempt.watch.retrained is not None

    def trial(self) -> Trial:
        """Return the plain trial, that has succeeded.

        Raises:
            NotApplicable: it has failed, which other rules report, or `supports` refuses the testbed.
        """
        if self.attempt.error is not None:
            raise NotApplicable("the method does not get through; see acts and true_needs")
        return self.attempt

    def sound_trial(self) -> Trial:
        """Return the plain trial, that has left an ordinary model: only then other rules find something of their own.

        Raises:
            NotApplicable: it has not.
        """
        trial = self.trial()
        flaw = trial.flaw()
        if flaw is not None:
            raise NotApplicable(f"correct {flaw} first")
        return trial

    @cached_property
    def accuracy_before(self) -> float:
        """The share of real hold-out tokens that the untouched model predicts."""
        return accuracy(self.testbed())

    def run(
        self,
        testbed: Testbed,
        watch: Watch | None = None,
        *,
        deadline: float | None = None,
        briefly: bool = True,
    ) -> Trial:
        """Let the method act on `testbed`, as the core does it, and return what came of it; errors are caught.

        Args:
            testbed: what it acts on; changed in place.
            watch: where it is to be interrupted.
            deadline: seconds that it may take.
            briefly: whether training again ends after a few steps.
        """
        watch = watch or Watch()
        context = WatchedContext(watch=watch, deadline=deadline)
        method = self.method()
        view = testbed.shown_to(self.name, frozenset(method.needs))
        watched_sets(view, watch)
        context.train_again = self._train_again(testbed, view, context, FEW_STEPS if briefly else None)
        data, weights, before = digests(testbed), weights_of(testbed.model), ModelState.of(testbed.model)
        error: Exception | None = None
        embedding: Any = testbed.model.get_input_embeddings()
        with alone() as snapshot, ExitStack() as stack:
            stack.enter_context(watched_passes(watch, embedding.num_embeddings))
            try:
                method.apply(view, context)
            except Exception as raised:  # whatever a third party's code raises is a finding
                error = raised
            stack.close()
            changes = snapshot.changes()
        whole = dataclasses.replace(testbed, model=view.model, decoding=view.decoding)
        after = ModelState.of(watch.retrained or view.model)
        return Trial(whole, context, watch, before, after, weights, data, changes, error)

    def _train_again(
        self, testbed: Testbed, view: Testbed, context: WatchedContext, steps: int | None
    ) -> Callable[[Method], None]:
        provider = Memorizing(architecture=self.architecture)

        def train_again(regularizer: Method) -> None:
            again = dataclasses.replace(context, seed=0)
            untrained = provider.untrained(testbed, again)
            context.watch.retrained = untrained.model
            provider.retrain(untrained, regularizer, again, steps)
            view.model = untrained.model

        return train_again


def _shapes(weights: dict[str, Tensor]) -> dict[str, Any]:
    return {name: (value.shape, value.dtype) for name, value in weights.items()}


def digests(testbed: Testbed) -> dict[str, str]:
    """Return a digest of every set of a testbed."""
    return {name: sequences.digest() for name, sequences in testbed.sets().items()}


@torch.no_grad()
def accuracy(testbed: Testbed) -> float:
    """Return the share of real hold-out tokens that are predicted, decoding included."""
    evaluation = Evaluation(testbed)
    passes = [evaluation.teacher_forced(name) for name in evaluation.holdouts()]
    return sum(int(teacher_forced.hits.sum()) for teacher_forced in passes) / sum(
        int(teacher_forced.real.sum()) for teacher_forced in passes
    )
