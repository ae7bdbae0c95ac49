from __future__ import annotations

import math

import pytest
import torch

from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.errors import ConfigError
from unmemorize.training.optimizer import build_optimizer, learning_rate_at


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]


def test_the_recipe_reaches_the_optimizer() -> None:
    recipe = TrainingRecipe(learning_rate=0.5, betas=(0.8, 0.95), weight_decay=0.3)
    optimizer = build_optimizer(recipe, parameters())
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.8, 0.95), 0.3)


def test_betas_are_given_only_where_they_are_taken() -> None:
    optimizer = build_optimizer(TrainingRecipe(optimizer="SGD", weight_decay=0.2), parameters())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    assert "betas" not in optimizer.param_groups[0]


def test_frozen_parameters_are_left_out() -> None:
    frozen, free = parameters()
    frozen.requires_grad_(False)
    assert build_optimizer(TrainingRecipe(), [frozen, free]).param_groups[0]["params"] == [free]


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(TrainingRecipe(optimizer="AdamWW"), parameters())
    assert "'AdamWW'" in caught.value.what
    assert caught.value.expected.startswith("one of AdamW")
    assert caught.value.fix == "set optimizer = 'AdamW'"


@pytest.mark.parametrize("name", ["LBFGS", "Optimizer", "SparseAdam", "lr_scheduler"])
def test_what_cannot_train_a_model_step_by_step_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        build_optimizer(TrainingRecipe(optimizer=name), parameters())


def test_a_constant_rate_stays() -> None:
    recipe = TrainingRecipe(learning_rate=0.1)
    assert [learning_rate_at(recipe, step, 10) for step in (0, 5, 9)] == [0.1, 0.1, 0.1]


def test_the_rate_rises_over_the_warmup() -> None:
    recipe = TrainingRecipe(learning_rate=1.0, warmup_steps=3)
    assert [learning_rate_at(recipe, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.6), ("cosine", 0.6)])
def test_a_schedule_goes_from_the_rate_to_the_final_rate(schedule: str, middle: float) -> None:
    recipe = TrainingRecipe(learning_rate=1.0, final_learning_rate=0.2, schedule=schedule, warmup_steps=2)  # type: ignore[arg-type]
    rates = [learning_rate_at(recipe, step, 22) for step in range(2, 22)]
    assert rates[0] == 1.0
    assert math.isclose(rates[10], middle)
    assert rates == sorted(rates, reverse=True)
    assert 0.2 < rates[-1] < 0.25
