"""Training objectives, and the mitigations that are one: regularizers act while a model is trained from scratch."""

from __future__ import annotations

from abc import ABC
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from unmemorize.contracts.cost import Cost, Sizes
from unmemorize.contracts.method import Method, Stage
from unmemorize.errors import PluginError
from unmemorize.training.cost import trained

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Context
    from unmemorize.contracts.layout import MLP
    from unmemorize.contracts.testbed import Sequences, Testbed


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """What an objective sees of one step. B rows, T positions."""

    model: PreTrainedModel
    batch: Sequences
    """The rows of this step, on the CPU; `batch.ids` says which examples they are."""
    token_losses: Tensor
    """(B, T - 1) float32 cross-entropy of each target token, 0 at padding; it carries the gradient."""
    mask: Tensor
    """(B, T - 1) bool, True where the target is a real token."""
    sequence_losses: Tensor
    """(B,) mean of `token_losses` over each row's real targets."""
    number: int
    """The optimizer step, from 0."""
    epoch: int
    """The pass over the data, from 0."""

    @property
    def mean_loss(self) -> Tensor:
        """The mean over all real target tokens of the batch, a scalar."""
        return self.token_losses.sum() / self.mask.sum().clamp(min=1)

    def mean_over(self, counted: Tensor) -> Tensor:
        """Return the mean over the real target tokens that `counted` marks, a scalar; 0 where it marks none.

        Args:
            counted: (B, T - 1) or (B, 1) bool, on any device; column j is about token j + 1.
        """
        kept = self.mask & counted.to(self.mask.device)
        return (self.token_losses * kept).sum() / kept.sum().clamp(min=1)


class TrainingObjective:
    """What a training run minimizes, and what it hooks in meanwhile; `train` takes one. The default changes nothing.

    A `Regularizer` is a method that is an objective. A `FineTuning` method returns one from its `objective`.
    """

    name: ClassVar[str]
    """What the randomness of `attach` is derived from, together with the seed."""

    def attach(
        self,
        model: PreTrainedModel,
        mlps: tuple[MLP, ...],
        generator: torch.Generator,
    ) -> AbstractContextManager[object]:
        """Return a context manager that is open while the model is trained (forward hooks, fresh buffers).

        It must remove what it added, also after an exception. Between epochs the model is measured in eval
        mode.

        Args:
            model: the model that is about to be trained.
            mlps: the MLPs of that model.
            generator: the source of this method's randomness.
        """
        return nullcontext()

    def before_batch(self, batch: Sequences) -> None:
        """Do something just before the forward pass over `batch` (its `ids` say which examples follow)."""

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the scalar to minimize; the default is the mean token cross-entropy."""
        return step.mean_loss

    def done(self) -> bool:
        """Return whether a fine-tuning may end here; asked after each epoch. The default never ends it early."""
        return False

    def finish(self, model: PreTrainedModel, mlps: tuple[MLP, ...]) -> None:
        """Bake into the weights what must stay once the hooks are gone; called without gradients."""


class Regularizer(Method, TrainingObjective, ABC):
    """A method that changes how the model is trained: give it an `objective`, hooks (`attach`), or both.

    The provider trains the testbed's model again from scratch, on the same data, from the same initial weights.
    """

    stage: ClassVar[Stage] = "train"
    needs: ClassVar[frozenset[str]] = frozenset({"training_data"})

    def supports(self, testbed: Testbed) -> str | None:
        """Return a reason unless the testbed can be trained from scratch."""
        if not testbed.trainable:
            return "it acts during training, and this testbed's provider does not train from scratch"
        return super().supports(testbed)

    def cost(self, testbed: Testbed) -> Cost | None:
        """Return what training again takes, after the facts of the first time, or None where nobody noted them."""
        facts = testbed.facts
        if not {"training_tokens", "training_sequences", "epochs", "steps"} <= facts.keys():
            return None
        seen = facts["training_sequences"] * facts["epochs"]
        again = trained(
            testbed, testbed.recipe, tokens=facts["training_tokens"] - seen, steps=facts["steps"],
            longest=round(facts["training_tokens"] / max(1, seen)),
        )  # fmt: skip
        size = Sizes.of(testbed)  # the model that is trained again stands beside the testbed's own
        return again + Cost(device_bytes=size.parameters * size.weight_bytes) + self.extra_cost(testbed, again)

    def extra_cost(self, testbed: Testbed, plain: Cost) -> Cost:
        """Return what this regularizer takes beyond training without it, whose cost is `plain`; nothing by default."""
        return Cost()

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Train the model again under this regularizer."""
        if context.train_again is None:
            raise PluginError(
                f"method {self.name!r} acts during training, and nothing here can train the model again",
                expected="a testbed from a provider that trains (`unmemorize list providers` says which do)",
                fix="use the method in a suite whose testbed is trained here, one that its provider trains",
            )
        with context.timed("train"):
            context.train_again(self)
