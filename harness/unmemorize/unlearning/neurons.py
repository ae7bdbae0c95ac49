"""Neuron-level unlearning: attribute, select the top share, remove."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.context import Context
from unmemorize.contracts.method import Method, Stage
from unmemorize.contracts.testbed import Testbed
from unmemorize.editing.edits import zero_neurons
from unmemorize.editing.selection import Scope, select_top
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor


class NeuronConfig(StrictConfig):
    """What every neuron-level method can be told."""

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the neurons to remove. Grid of the paper: 0.001, 0.01, 0.05, 0.1."""
    scope: Scope = "layer"
    """Whether this share is taken of every layer or of all neurons of the model together."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sequences per forward pass. It changes memory and speed, not the result."""


SELECTION_FIELDS = frozenset({"ratio", "scope"})
"""Fields that decide which units are chosen, not how they are scored: attributions are shared over them."""


class NeuronUnlearning(Method):
    """Implement `attribute`; the core selects the top share of neurons and removes them.

    An attribution is computed once per testbed and shared over ratios; every cell is charged its full seconds.
    """

    stage: ClassVar[Stage] = "unlearn"
    Config: ClassVar[type[StrictConfig]] = NeuronConfig

    @abstractmethod
    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return float32, how much each neuron is responsible for regurgitating the forget set.

        One number for every neuron of every MLP in their order, (neurons,); where all MLPs have as many neurons,
        (MLPs, neurons) is the same.
        """

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for models without a layout."""
        return super().supports(testbed) or missing_layout(testbed)

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Attribute, select, remove."""

        with evaluation_mode(testbed.model):
            scores = context.shared(attribution_key(self), lambda: self.attribute(testbed, context))
        with context.timed("edit"):
            each = scores.flatten().split([mlp.neurons for mlp in testbed.mlps])
            named = {mlp.down.name: own for mlp, own in zip(testbed.mlps, each, strict=True)}
            selection = select_top(named, self.config.ratio, self.config.scope)
            zero_neurons(testbed.mlps, selection.masks.values())
        context.report.notes["selected_neurons"] = selection.chosen
        note_ties(context, selection.ties)


def attribution_key(method: Method) -> tuple[Any, ...]:
    """Return what an attribution depends on beside the testbed: the method and every setting but the selection's."""
    settings = method.config.model_dump(mode="json", exclude=SELECTION_FIELDS)
    return (type(method), method.name, repr(sorted(settings.items())))


def missing_layout(testbed: Testbed) -> str | None:
    """Return why MLPs cannot be edited, or None if they can."""
    if testbed.mlps:
        return None
    kind = testbed.model.config.model_type
    added = "a plugin can add one through the hook register_layouts"
    return testbed.mlps_note or f"no layout is registered for model type {kind!r}; {added}"


def note_ties(context: Context, ties: int) -> None:
    """Report ties that decided a selection."""
    if ties:
        context.report.notes["ties_at_threshold"] = ties
        context.report.flags.add("tie-broken")
