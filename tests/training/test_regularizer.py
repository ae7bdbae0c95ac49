from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.contracts.layout import MLP
from unmemorize.contracts.method import Method
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.errors import PluginError
from unmemorize.training.checkpoint import Checkpoint
from unmemorize.training.loop import train
from unmemorize.training.losses import sequence_losses
from unmemorize.training.regularizer import Regularizer, TrainingStep

Make = Callable[..., PreTrainedModel]

RECIPE = TrainingRecipe(epochs=2, batch_size=8)


class Plain(Regularizer):
    name: ClassVar[str] = "plain"


class Watching(Regularizer):
    """Writes down what it is called with, and when."""

    name: ClassVar[str] = "watching"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.ids: list[int] = []
        self.steps: list[TrainingStep] = []
        self.drawn: list[float] = []
        self.mlps: tuple[MLP, ...] | None = None

    @contextmanager
    def attach(self, model: PreTrainedModel, mlps: tuple[MLP, ...], generator: torch.Generator) -> Iterator[None]:
        self.calls.append("attach")
        self.mlps = mlps
        self.drawn.append(torch.rand((), generator=generator).item())
        handle = model.register_forward_hook(lambda *_: self.calls.append("forward"))
        try:
            yield
        finally:
            handle.remove()
            self.calls.append("detach")

    def before_batch(self, batch: Sequences) -> None:
        self.calls.append("before_batch")
        self.ids += batch.ids.tolist()

    def objective(self, step: TrainingStep) -> Tensor:
        self.calls.append("objective")
        self.steps.append(step)
        return super().objective(step)

    def finish(self, model: PreTrainedModel, mlps: tuple[MLP, ...]) -> None:
        assert not torch.is_grad_enabled()
        self.calls.append("finish")
        model.lm_head.weight.zero_()


class Breaking(Watching):
    def objective(self, step: TrainingStep) -> Tensor:
        raise RuntimeError("it breaks")


class OnlySuffix(Regularizer):
    """Trains on rows of even ids only."""

    name: ClassVar[str] = "even"

    def objective(self, step: TrainingStep) -> Tensor:
        return (step.sequence_losses * (step.batch.ids % 2 == 0)).sum()


def test_one_that_changes_nothing_changes_nothing(make_model: Make, rows: Sequences) -> None:
    alone, under = make_model(), make_model()
    train(alone, rows, RECIPE, Context())
    train(under, rows, RECIPE, Context(), regularizer=Plain())
    assert all(torch.equal(under.state_dict()[name], value) for name, value in alone.state_dict().items())


def test_every_moment_is_called_in_order(model: PreTrainedModel, rows: Sequences) -> None:
    watching = Watching()
    train(model, rows, RECIPE, Context(), regularizer=watching, mlps=("the mlps",))  # type: ignore[arg-type]
    one_step = ["before_batch", "forward", "objective"]
    assert watching.calls == ["attach", *one_step * 6, "detach", "finish"]
    assert sorted(watching.ids) == sorted(2 * rows.ids.tolist())
    assert watching.mlps == ("the mlps",)
    assert model.lm_head.weight.eq(0).all()


def test_a_step_holds_what_its_names_say(model: PreTrainedModel, rows: Sequences) -> None:
    watching = Watching()
    frozen = TrainingRecipe(epochs=2, batch_size=8, optimizer="SGD", learning_rate=1e-30, weight_decay=0.0)
    train(model, rows, frozen, Context(), regularizer=watching)
    assert [(step.number, step.epoch) for step in watching.steps] == [(n, n // 3) for n in range(6)]
    for step in watching.steps:
        assert step.token_losses.shape == step.mask.shape == (len(step.batch), step.batch.tokens.shape[1] - 1)
        assert step.token_losses[~step.mask].eq(0).all()
        means = step.token_losses.sum(1) / step.mask.sum(1)
        torch.testing.assert_close(step.sequence_losses, means)
        torch.testing.assert_close(step.mean_loss, step.token_losses[step.mask].mean())


def test_the_objective_is_what_is_minimized(make_model: Make) -> None:
    rows = Sequences.from_rows([[2, 3, 4, 5], [6, 7, 8, 9], [3, 5, 7, 9], [10, 8, 6, 4]], prompt=1)
    model = make_model()
    train(model, rows, TrainingRecipe(epochs=60, learning_rate=1e-2), Context(), regularizer=OnlySuffix())
    losses = sequence_losses(model, rows)
    assert losses[[0, 2]].max() < 1 < losses[[1, 3]].min()


def test_its_hooks_go_also_after_an_exception(model: PreTrainedModel, rows: Sequences) -> None:
    breaking = Breaking()
    with pytest.raises(RuntimeError, match="it breaks"):
        train(model, rows, RECIPE, Context(), regularizer=breaking)
    assert breaking.calls[-1] == "detach"
    assert not model._forward_hooks
    assert not model.training


def test_its_randomness_comes_from_the_seed(make_model: Make, rows: Sequences) -> None:
    drawn = []
    for seed in (0, 0, 1):
        watching = Watching()
        train(make_model(), rows, RECIPE, Context(seed=seed), regularizer=watching)
        drawn += watching.drawn
    assert drawn[0] == drawn[1] != drawn[2]


def test_it_is_not_combined_with_a_checkpoint(model: PreTrainedModel, rows: Sequences, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="state of a regularizer"):
        train(model, rows, RECIPE, Context(), regularizer=Plain(), checkpoint=Checkpoint(tmp_path / "run"))


def test_a_testbed_that_is_not_trained_here_is_refused(model: PreTrainedModel, rows: Sequences) -> None:
    testbed = Testbed("t", model, rows)
    assert "does not train from scratch" in str(Plain().supports(testbed))
    testbed.trainable = True
    assert Plain().supports(testbed) is None


def test_apply_trains_again_and_is_charged(model: PreTrainedModel, rows: Sequences) -> None:
    called: list[Method] = []
    context = Context(train_again=called.append)
    plain = Plain()
    plain.apply(Testbed("t", model, rows), context)
    assert called == [plain]
    assert set(context.report.seconds) == {"train"}


def test_apply_without_a_way_to_train_says_so(model: PreTrainedModel, rows: Sequences) -> None:
    with pytest.raises(PluginError, match="'plain' acts during training"):
        Plain().apply(Testbed("t", model, rows), Context())


def test_the_mean_over_some_tokens_counts_no_others(model: PreTrainedModel, rows: Sequences) -> None:
    watching = Watching()
    train(model, rows, TrainingRecipe(epochs=1, batch_size=8), Context(), regularizer=watching)
    step = watching.steps[0]
    every_third = (torch.arange(step.mask.shape[1]) % 3 == 0).expand_as(step.mask)
    torch.testing.assert_close(step.mean_over(every_third), step.token_losses[every_third & step.mask].mean())
    first_rows = torch.arange(len(step.mask))[:, None] < 2
    torch.testing.assert_close(step.mean_over(first_rows), step.token_losses[:2][step.mask[:2]].mean())
    torch.testing.assert_close(step.mean_over(step.mask), step.mean_loss)
    assert step.mean_over(torch.zeros_like(step.mask)) == 0
