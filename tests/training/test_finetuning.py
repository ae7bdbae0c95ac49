from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.training.finetuning import FineTuning, FineTuningConfig
from unmemorize.training.losses import sequence_losses
from unmemorize.training.regularizer import TrainingObjective, TrainingStep


class OnRetain(FineTuning):
    name: ClassVar[str] = "on_retain"
    needs: ClassVar[frozenset[str]] = frozenset({"retain"})

    def sequences(self, testbed: Testbed) -> Sequences:
        assert testbed.retain is not None
        return testbed.retain


OWN = TrainingRecipe(
    epochs=90,
    max_steps=7,
    batch_size=6,
    learning_rate=5e-3,
    schedule="cosine",
    warmup_steps=9,
    weight_decay=0.3,
)


@pytest.fixture
def testbed(model: PreTrainedModel, rows: Sequences) -> Testbed:
    half = len(rows) // 2
    return Testbed("t", model, rows.select(slice(half)), rows.select(slice(half, None)), recipe=OWN)


def test_the_recipe_is_the_testbeds_at_a_constant_rate(testbed: Testbed) -> None:
    expected = TrainingRecipe(epochs=5, batch_size=6, learning_rate=5e-3, weight_decay=0.3)
    assert OnRetain().recipe(testbed) == expected


def test_what_is_given_replaces_what_the_testbed_says(testbed: Testbed) -> None:
    given = {
        "epochs": 2,
        "max_steps": 3,
        "learning_rate": 0.1,
        "batch_size": 2,
        "optimizer": "SGD",
        "weight_decay": 0.0,
    }
    assert OnRetain(**given).recipe(testbed) == TrainingRecipe(**given)  # type: ignore[arg-type]


def test_it_trains_on_its_sequences_and_reports(testbed: Testbed) -> None:
    assert testbed.retain is not None
    before = sequence_losses(testbed.model, testbed.retain).mean()
    context = Context(measure=lambda _: {"x": 1.0})
    OnRetain(epochs=8).apply(testbed, context)
    assert sequence_losses(testbed.model, testbed.retain).mean() < before - 0.1
    assert [point["epoch"] for point in context.report.curve] == [float(n) for n in range(1, 9)]
    assert set(context.report.seconds) == {"train"}
    assert (context.report.notes["steps"], context.report.notes["epochs"]) == (16, 8)
    assert not testbed.model.training


def test_it_is_deterministic(testbed: Testbed) -> None:
    start = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    ends = []
    for _ in range(2):
        testbed.model.load_state_dict(start)
        OnRetain(epochs=1).apply(testbed, Context(seed=1))
        ends.append(testbed.model.lm_head.weight.clone())
    assert torch.equal(*ends)


def test_settings_are_checked() -> None:
    for wrong in ({"epochs": 0}, {"learning_rate": 0}, {"batch_size": -1}, {"epoch": 3}):
        with pytest.raises(ValidationError):
            FineTuningConfig(**wrong)  # type: ignore[arg-type]


def test_a_subclass_may_add_settings_of_its_own(testbed: Testbed) -> None:
    class OtherConfig(FineTuningConfig):
        mix: float = 0.5
        """A setting that is not the loop's."""

    class Other(OnRetain):
        Config: ClassVar = OtherConfig

    assert Other(mix=0.1, epochs=3).recipe(testbed).epochs == 3


class Unlearn(TrainingObjective):
    """Gradient ascent that ends after some epochs."""

    name: ClassVar[str] = "unlearn"

    def __init__(self, last: int) -> None:
        self.epochs, self.last = 0, last

    def objective(self, step: TrainingStep) -> Tensor:
        return -step.mean_loss

    def done(self) -> bool:
        self.epochs += 1
        return self.epochs == self.last


class Ascent(FineTuning):
    name: ClassVar[str] = "ascent"

    def sequences(self, testbed: Testbed) -> Sequences:
        return testbed.forget

    def objective(self, testbed: Testbed, context: Context) -> TrainingObjective:
        return Unlearn(last=2)


def test_a_fine_tuning_may_have_an_objective_of_its_own_and_end_when_it_says(testbed: Testbed) -> None:
    before = sequence_losses(testbed.model, testbed.forget).mean().item()
    context = Context()
    Ascent(epochs=9).apply(testbed, context)
    assert sequence_losses(testbed.model, testbed.forget).mean() > before
    assert context.report.notes["epochs"] == 2
    assert context.report.notes["stopped_early"] is True
    assert context.report.notes["final_loss"] < 0


def test_without_an_objective_of_its_own_no_end_is_early(testbed: Testbed) -> None:
    context = Context()
    OnRetain(epochs=2).apply(testbed, context)
    assert "stopped_early" not in context.report.notes
