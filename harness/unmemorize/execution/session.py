"""A loaded testbed: what its cells share, and the proof that each of them leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unmemorize.contracts.answers import ask
from unmemorize.contracts.bits import Fingerprint, fingerprints
from unmemorize.contracts.context import Context
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.shared_work import SharedWork
from unmemorize.editing.edits import gradients_of
from unmemorize.errors import DataChangedError, LeftBehindError
from unmemorize.evaluation import evaluate
from unmemorize.evaluation.evaluate import Measured, ValueKey
from unmemorize.evaluation.finite import check_weights
from unmemorize.execution.canary import Canary
from unmemorize.execution.data_reference import DataReference
from unmemorize.execution.estimate import advice_for, needed
from unmemorize.execution.isolation import isolated
from unmemorize.execution.probe import activation_bytes
from unmemorize.execution.reference import Reference, named_tensors
from unmemorize.training.losses import sequence_losses

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.method import Method
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.evaluation.metric import Metric


class Skipped(Exception):  # noqa: N818 - an outcome, not an error
    """A method that does not apply, with the reason."""


class LoadedTestbed:
    """A loaded testbed, its metrics, a reference of its model, and what its cells share.

    Memory: the model, and one copy of its state on the CPU.

    Args:
        testbed: the testbed; methods act on its model.
        metrics: what is measured before and after.
        headline: the metrics of a method's curve, by the set on which their value counts (`forget`, `holdout`).

    Raises:
        NotFiniteError: the model comes with weights that are NaN or infinite.
    """

    def __init__(
        self, testbed: Testbed, metrics: Sequence[Metric] = (), headline: Mapping[str, Metric] | None = None
    ) -> None:
        self.testbed, self.metrics, self.headline = testbed, metrics, headline or {}
        check_weights(testbed.model)
        self._model = testbed.model
        self.reference, self.data = Reference(testbed.model), DataReference(testbed)
        self.shared_work = SharedWork()
        self.undone: list[str] = []
        """In words, what the cell at work has changed beside the weights, and what was restored at once."""
        self._left: list[str] = []
        self._warm = False
        self._activations: dict[bool, float] = {}
        """Bytes per token that wait for a backward pass, when training and otherwise."""
        self._canary = Canary(testbed)
        self._namespaces = Namespaces(_code_of(testbed.model))
        self._loaded = _Model.of(testbed.model, self.reference)

    @contextmanager
    def isolated(self, who: str, seed: int) -> Iterator[None]:
        """Let a plugin's code work inside: everything global is restored, and what that was is written down.

        Raises:
            LeftBehindError: it left functions or classes replaced.
        """
        try:
            with isolated(seed, self._namespaces) as guard:
                yield
        finally:
            self.undone += guard.changes
            self._left += guard.left
        if guard.replaced:
            raise LeftBehindError(who, guard.replaced)

    def measure(self, context: Context, testbed: Testbed | None = None) -> dict[ValueKey, Measured]:
        """Return every value of every metric.

        Raises:
            DataChangedError: a metric wrote into the data.
            LeftBehindError: a metric changed the model, or left hooks on it.
        """
        measured = testbed or self.testbed
        before = _Model.of(measured.model)

        def alone(who: str) -> AbstractContextManager[None]:
            return self.untouched(who, context.seed, before)

        return evaluate(measured, self.metrics, Context(progress=context.progress), alone)

    @contextmanager
    def untouched(self, who: str, seed: int, before: _Model | None = None) -> Iterator[None]:
        """Let a plugin's code look inside, and restore modes and attributes that it changes.

        Args:
            who: whose code it is, in words.
            seed: of the global generators.
            before: the model that is looked at, as it is; by default the testbed's, as it was loaded.

        Raises:
            DataChangedError: it wrote into the data.
            LeftBehindError: it changed weights, or left hooks or patches.
        """
        before = before or self._loaded
        with self.isolated(who, seed):
            yield
        changed = self.data.restore()
        if changed.sets:
            raise DataChangedError(who, changed.sets)
        found = before.reference.differences(before.model)
        edited = before.bits != fingerprints(before.tensors)
        if edited or found.hooks:
            raise LeftBehindError(who, ["other weights"] * edited + found.hooks)
        if found.attributes or found.modes:
            before.reference.restore_all_but_values()
        self.undone += [f"{who} changed {words}" for words in (*changed.fields, *found.attributes, *found.modes)]

    def keep_weights_alone(self, model: PreTrainedModel) -> list[str]:
        """Restore everything of a model that a method has acted on but the values of its tensors.

        What is measured are then weights that any copy of the model can hold.

        Returns:
            In words, what was there beside the weights and made the model another one; nothing if that is all right.
        """
        found = self.reference.differences(model)
        if found.hooks or model is not self._model:  # another model was trained from scratch by the provider
            return found.hooks
        if found.attributes:
            before = self._canary.logits(model)
            self.reference.restore_all_but_values()
            if not self._canary.same(self._canary.logits(model), before):
                return found.attributes
        self.reference.restore_all_but_values()
        self.undone += [*found.attributes, *found.modes]
        return []

    def headlines(self, testbed: Testbed) -> dict[str, float]:
        """Return the values that a curve is drawn of, by the labels of their metrics."""
        values = evaluate(testbed, list(self.headline.values()))
        slots = [ValueKey(metric.label(testbed), on, "all") for on, metric in self.headline.items()]
        return {slot.metric: values[slot].measurement.value for slot in slots if slot in values}

    def restore_later(self) -> None:
        """Restore at once, and leave it to the next `restore` to say what still differs."""
        self._left = self.restore()

    def restore(self) -> list[str]:
        """Restore data and model, whatever was done to them, and prove it; return in words what still differs."""
        left = [*self._left, *self.reference.restore()]
        self._left, self.undone = [], []
        self.data.restore()
        if self.testbed.model is not self._model:
            self.testbed.model = self._model
        other = self.reference.other_shape(self._model)
        left += [*([other] if other else []), *self.reference.differences(self._model).all()]
        if self._namespaces.restore():
            left += self._namespaces.changes()
        left += self._canary.differences()
        return list(dict.fromkeys(left))

    def check_fits(self, method: Method, view: Testbed, context: Context) -> None:
        """Refuse what cannot fit before anything is spent, as far as the method says what it needs.

        Raises:
            Skipped: it needs more memory than is free.
        """
        cost = ask(method, "cost", view)
        if cost is None:
            return
        training = cost.training_tokens > 0
        if cost.held_tokens and training not in self._activations:
            self._activations[training] = activation_bytes(self.testbed, context, training=training)
        need = needed(self.testbed, cost, context, self._activations.get(training, 0.0))
        if not need.fits:
            raise Skipped(need.reason(advice_for(cost, need, context)))

    def warm_up(self) -> None:
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


class _Model(NamedTuple):
    """A model as it is, its tensors by fingerprints alone."""

    model: PreTrainedModel
    reference: Reference
    tensors: list[Tensor]
    bits: list[Fingerprint]

    @classmethod
    def of(cls, model: PreTrainedModel, reference: Reference | None = None) -> _Model:
        tensors = [tensor for _, tensor in named_tensors(model)]
        return cls(model, reference or Reference(model, values=False), tensors, fingerprints(tensors))


def _code_of(model: torch.nn.Module) -> Iterator[Any]:
    """Yield the classes of a model's modules, what they inherit from, and the modules of Python that define them."""
    import sys

    for kind in {each: None for module in model.modules() for each in type(module).__mro__ if each is not object}:
        yield kind
        if kind.__module__ in sys.modules:
            yield sys.modules[kind.__module__]
