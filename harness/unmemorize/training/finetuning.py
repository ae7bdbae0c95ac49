"""Fine-tuning methods: mitigations that go on training the model, on other data or towards another objective."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.method import Method, Stage
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.training.cost import training_cost
from unmemorize.training.loop import train

if TYPE_CHECKING:
    from unmemorize.contracts.context import Context
    from unmemorize.contracts.cost import Cost
    from unmemorize.contracts.testbed import Sequences, Testbed
    from unmemorize.training.regularizer import TrainingObjective


class FineTuningConfig(StrictConfig):
    """How to go on training; what is not given is taken from the testbed's own recipe."""

    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the fine-tuning data."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Constant learning rate; by default the one that the model was trained with."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Sequences per optimizer step; by default as the model was trained."""
    optimizer: str | None = None
    """Name of a class in `torch.optim`; by default as the model was trained."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay; by default as the model was trained."""


class FineTuning(Method):
    """A method that goes on training: say on which `sequences` and, if not plainly, towards which `objective`.

    Source: Sakarvadia et al. 2025, section 4 (Clean, Extra, Both: training goes on, on other data).
    """

    stage: ClassVar[Stage] = "finetune"
    Config: ClassVar[type[StrictConfig]] = FineTuningConfig

    @abstractmethod
    def sequences(self, testbed: Testbed) -> Sequences:
        """Return the rows to train on; a row that stands twice is seen twice per epoch."""

    def objective(self, testbed: Testbed, context: Context) -> TrainingObjective | None:
        """Return what is minimized, made fresh for this run; the default, none, is the mean token cross-entropy.

        Called before the first step, with the model as it was given: what is computed here is charged as training.
        """
        return None

    def recipe(self, testbed: Testbed) -> TrainingRecipe:
        """Return the testbed's recipe at a constant rate without warm-up, this config's settings over it."""
        own = self.config.model_dump(include=set(FineTuningConfig.model_fields), exclude_none=True)
        settings: dict[str, Any] = testbed.recipe.model_dump() | {
            "schedule": "constant",
            "warmup_steps": 0,
            "max_steps": None,
        }
        return TrainingRecipe(**settings | own)

    def cost(self, testbed: Testbed) -> Cost | None:
        """Return what the recipe takes on these sequences; a method with an objective of its own must say it itself."""
        if type(self).objective is not FineTuning.objective:
            return None
        return training_cost(testbed, self.sequences(testbed), self.recipe(testbed))

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Train the model on; the curve over epochs is measured off the clock."""
        with context.timed("train"):
            objective = self.objective(testbed, context)
            report = train(
                testbed.model, self.sequences(testbed), self.recipe(testbed), context, regularizer=objective,
                mlps=testbed.mlps, on_epoch=context.curve_point, description=self.name,
                stop_when=None if objective is None else lambda _: objective.done(),
            )  # fmt: skip
        context.report.notes |= {"steps": report.steps, "epochs": report.epochs, "final_loss": report.final_loss}
        if report.stopped_early:
            context.report.notes["stopped_early"] = True
