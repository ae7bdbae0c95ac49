"""Trials: a method is let act on a copy of a memorizing testbed, and everything that it does is written down."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from unmemorize.contracts.method import Method
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import ProcessState
from unmemorize.errors import DataChangedError, DivergedError, LeftBehindError, NoOpError, ReportError, StateDictError
from unmemorize.evaluation import Evaluation
from unmemorize.execution.act import act
from unmemorize.execution.reference import Differences, Reference
from unmemorize.execution.session import LoadedTestbed
from unmemorize.testing.alone import alone
from unmemorize.testing.memorizing import Memorizing, memorizing_testbed
from unmemorize.testing.report import Kind, NotApplicable
from unmemorize.testing.watching import Watch, WatchedContext, watched_passes, watched_sets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Context
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.registry.manager import Registry
    from unmemorize.testing.models import Architecture


FEW_STEPS = 12
"""Steps after which training again ends, where only side effects are looked at."""
DEADLINE = 10.0
"""Seconds that a plugin is given with settings other than its defaults."""


@dataclass(slots=True)
class Trial:
    """What came of letting a method act."""

    testbed: Testbed
    """The testbed afterwards: all of its data, and the model and the decoding that the method left."""
    context: WatchedContext
    watch: Watch
    model: Differences = field(default_factory=lambda: Differences([], [], []))
    """What was other about the model, beside its weights, when the method had acted."""
    data: list[str] = field(default_factory=list)
    """Names of the sets that it changed."""
    global_changes: list[str] = field(default_factory=list)
    reached: bool = False
    """Whether the method was let act at all."""
    error: Exception | None = None
    """What the method raised."""
    refusal: Exception | None = None
    """Why a run would record it as failed or skipped, although the method itself raised nothing."""

    @property
    def flaw(self) -> str | None:
        """The rule about the model that this trial breaks, if it breaks one."""
        for refusal, rule in _RULES.items():
            if isinstance(self.refusal, refusal):
                return rule
        if self.refusal is not None:
            return "acts"
        return "removes_hooks" if self.model.hooks else None


_RULES: dict[type[Exception], str] = {
    StateDictError: "keeps_state_dict",
    ReportError: "recordable_notes",
    LeftBehindError: "removes_hooks",
    DataChangedError: "keeps_the_data",
    DivergedError: "changes_something",
    NoOpError: "changes_something",
}
"""The rule that looks at what a run refuses."""


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
        if not self.attempt.reached:
            raise NotApplicable("a run does not let it act; see acts and declared_cost")
        return self.attempt

    def sound_trial(self) -> Trial:
        """Return the plain trial, that has left an ordinary model: only then other rules find something of their own.

        Raises:
            NotApplicable: it has not.
        """
        trial = self.trial()
        if trial.flaw is not None:
            raise NotApplicable(f"correct {trial.flaw} first")
        return trial

    def error_with(self, changes: dict[str, Any]) -> Exception | None:
        """Return what acting with some settings changed raises, if anything; it may take a few seconds.

        Raises:
            NotApplicable: it does not get through without changes.
        """
        self.sound_trial()
        changed = dataclasses.replace(self, settings={**self.settings, **changes})
        if changed.refusal is not None:
            return changed.refusal if isinstance(changed.refusal, Exception) else None
        trial = changed.run(changed.testbed(), deadline=DEADLINE)
        return trial.error or trial.refusal

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
        """Let the method act on `testbed`, as runs and `mitigate` do, and return what came of it; errors are caught.

        Args:
            testbed: what it acts on; changed in place.
            watch: where it is to be interrupted.
            deadline: seconds that it may take.
            briefly: whether training again ends after a few steps.
        """
        context = WatchedContext(watch=watch or Watch(), deadline=deadline)
        trial = Trial(testbed, context, context.watch)
        provider = _TrainingAgain(trial.watch, FEW_STEPS if briefly else None, self.architecture)
        with alone():
            try:
                act(LoadedTestbed(testbed), _observed(self.method(), trial), context, provider)
            except Exception as error:  # whatever a third party's code raises is a finding
                trial.refusal = None if error is trial.error else error
        return trial


def _observed(method: Method, trial: Trial) -> Method:
    """Return the method with an `apply` that writes down in `trial` what it looks at and what it leaves."""
    apply, testbed, watch = method.apply, trial.testbed, trial.watch
    embedding: Any = testbed.model.get_input_embeddings()
    before, data = Reference(testbed.model, values=False), digests(testbed)

    def observed(view: Testbed, context: Context) -> None:
        given = watched_sets(view, watch)
        trial.reached, snapshot = True, ProcessState(namespaces=Namespaces())
        try:
            with watched_passes(watch, embedding.num_embeddings):
                apply(view, context)
        except Exception as error:
            trial.error = error
            raise
        finally:
            trial.global_changes = snapshot.changes()
            trial.context = cast("WatchedContext", context)
            trial.testbed = dataclasses.replace(testbed, model=view.model, decoding=context.report.decoding)
            trial.model = before.differences(watch.retrained or view.model)
            touched = set(watch.touched)  # to look at what it was shown is no look of its own
            shown = [name for name, sequences in given.items() if sequences.digest() != data[name]]
            watch.touched = touched
            trial.data = list(dict.fromkeys([*changed_sets(data, testbed), *shown]))

    vars(method)["apply"] = observed
    return method


class _TrainingAgain(Memorizing):
    """Trains the tiny model again, for a few steps or to the end, and lets a watch know."""

    def __init__(self, watch: Watch, steps: int | None, architecture: Architecture) -> None:
        super().__init__(architecture=architecture)
        self._watch, self._steps = watch, steps

    def train(self, testbed: Testbed, regularizer: Method, context: Context) -> PreTrainedModel:
        """Train from the initial weights."""
        untrained = self.untrained(testbed, context)
        self._watch.retrained = untrained.model
        self.retrain(untrained, regularizer, context, self._steps)
        return untrained.model


def digests(testbed: Testbed) -> dict[str, str]:
    """Return a digest of every set of a testbed."""
    return {name: sequences.digest() for name, sequences in testbed.sets().items()}


def changed_sets(before: dict[str, str], testbed: Testbed) -> list[str]:
    """Return the names of the sets that have another digest than before, or are not there."""
    now = digests(testbed)
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]


@torch.no_grad()
def accuracy(testbed: Testbed) -> float:
    """Return the share of real hold-out tokens that are predicted, decoding included."""
    evaluation = Evaluation(testbed)
    passes = [evaluation.teacher_forced(name) for name in evaluation.holdouts()]
    return sum(int(teacher_forced.hits.sum()) for teacher_forced in passes) / sum(
        int(teacher_forced.real.sum()) for teacher_forced in passes
    )
