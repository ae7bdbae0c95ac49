"""Measurements of a metric on testbeds whose answer is known: one that extracts everything, one that knows nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from unmemorize.contracts.answers import ask
from unmemorize.contracts.metric import Measurement
from unmemorize.evaluation import Evaluation
from unmemorize.evaluation.metric import Metric
from unmemorize.execution.reference import Differences, Reference
from unmemorize.testing.alone import alone
from unmemorize.testing.memorizing import fresh_model, memorizing_testbed
from unmemorize.testing.report import Kind, NotApplicable
from unmemorize.testing.trial import changed_sets, digests

if TYPE_CHECKING:
    from torch import Tensor

    from unmemorize.contracts.testbed import Sequences, Testbed
    from unmemorize.registry.manager import Registry
    from unmemorize.testing.models import Architecture


class Key(NamedTuple):
    """What a value is about."""

    metric: str | None
    """A label other than the metric's own."""
    set: str
    part: str


@dataclass(slots=True)
class Measuring:
    """What came of measuring a testbed."""

    testbed: Testbed
    measurements: list[Any]
    weights: list[str]
    """Names of the weights that were changed."""
    model: Differences
    """What else is other about the model."""
    data: list[str]
    """Names of the sets that were changed."""
    global_changes: list[str]
    error: Exception | None = None

    def by_key(self) -> dict[Key, Measurement]:
        """Return the measurements by what they are about."""
        return {key_of(each): each for each in self.measurements}

    def own(self, name: str) -> Measurement | None:
        """Return the metric's own value on the whole of a set."""
        return self.by_key().get(Key(None, name, "all"))


@dataclass
class MetricCase:
    """One metric with one architecture, and measurements that several rules share."""

    plugin: type[Metric]
    settings: dict[str, Any] = field(default_factory=dict)
    architecture: Architecture = "gpt2"
    registry: Registry | None = None
    rule_names: tuple[str, ...] = ()
    kind: ClassVar[Kind] = "metric"

    def testbed(self) -> Testbed:
        """Return a testbed whose model regurgitates its whole forget set."""
        return memorizing_testbed(self.architecture, registry=self.registry)

    def ignorant(self) -> Testbed:
        """Return the same testbed around the untrained model."""
        testbed = self.testbed()
        testbed.model.load_state_dict(fresh_model(self.architecture, 0).state_dict())
        return testbed

    def metric(self, **changes: Any) -> Metric:
        """Return the metric with its settings."""
        return self.plugin(**self.settings | changes)

    @cached_property
    def attempt(self) -> Measuring:
        """The plain measurement, that may have failed."""
        return self.measure(self.testbed())

    def measured(self) -> Measuring:
        """Return the plain measurement, that has succeeded.

        Raises:
            NotApplicable: it has failed, which the rule `measures` reports.
        """
        if self.attempt.error is not None or not all(isinstance(x, Measurement) for x in self.attempt.measurements):
            raise NotApplicable("the metric does not get through; see measures")
        return self.attempt

    def error_with(self, changes: dict[str, Any]) -> Exception | None:
        """Return what measuring with some settings changed raises, if anything.

        Raises:
            NotApplicable: it does not get through without changes.
        """
        self.measured()
        return self.measure(self.testbed(), **changes).error

    @cached_property
    def of_ignorance(self) -> Measuring:
        """The measurement of the untrained model."""
        return self.measure(self.ignorant())

    def measure(self, testbed: Testbed, **changes: Any) -> Measuring:
        """Measure a testbed as the core does it, and return what came of it; errors are caught."""
        metric = self.metric(**changes)
        data, before = digests(testbed), Reference(testbed.model)
        error, measurements = None, list[Any]()
        with alone() as snapshot:
            evaluation = Evaluation(testbed)
            try:
                evaluation.expect(ask(metric, "readings", testbed))
                measurements.extend(ask(metric, "measure", evaluation))
            except Exception as raised:  # whatever a third party's code raises is a finding
                error = raised
            changed = snapshot.changes()
        weights, model = before.changed_values(testbed.model), before.differences(testbed.model)
        return Measuring(testbed, measurements, weights, model, changed_sets(data, testbed), changed, error)


def key_of(measurement: Measurement) -> Key:
    """Return what a measurement is about."""
    return Key(measurement.metric, measurement.set, measurement.part)


def rearranged(testbed: Testbed, change: Any) -> Testbed:
    """Return the testbed with `change(sequences)` in place of every set."""
    testbed.holdouts = {name: change(sequences) for name, sequences in testbed.holdouts.items()}
    for name in ("forget", "forget_unseen", "retain", "clean", "extra"):
        sequences = getattr(testbed, name)
        setattr(testbed, name, None if sequences is None else change(sequences))
    return testbed


def shuffled(sequences: Sequences) -> Sequences:
    """Return the rows in another order."""
    return sequences.select(torch.randperm(len(sequences), generator=torch.Generator().manual_seed(1)))


def padded(pad_id: int, columns: int = 5) -> Any:
    """Return a function that gives sequences some more columns of padding."""

    def change(sequences: Sequences) -> Sequences:
        def wider(tokens: Tensor) -> Tensor:
            return torch.nn.functional.pad(tokens, (0, columns), value=pad_id)

        clean = sequences.clean_tokens
        return dataclasses.replace(
            sequences, tokens=wider(sequences.tokens), clean_tokens=None if clean is None else wider(clean)
        )

    return change


class SwapsTopTokens:
    """A logits processor that swaps the two most likely tokens: nothing is extracted any more."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return (B, V) scores whose arg-max is another."""
        best = scores.topk(2, dim=-1)
        return scores.scatter(-1, best.indices, best.values.flip(-1))
