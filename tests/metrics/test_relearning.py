"""Relearning: what is trained on, what is measured, and that the testbed's own model never notices."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Context, Evaluation, Sequences, Testbed, TrainingRecipe
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed
from unmemorize.toolkit import train
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.relearning import ExtractionCurve, Relearning


@pytest.fixture
def suppressed() -> Callable[[Any], Testbed]:
    """A model that has memorized rows of one text and was then disturbed in its head alone."""

    def make(architecture: Any) -> Testbed:
        testbed = tiny_testbed(tiny_model(architecture), ())
        row = tiny_sequences(1, seed=7, shortest=14, longest=14).tokens[0].tolist()
        testbed.forget = Sequences.from_rows([row] * 8, prompt=4, pad_id=2)
        testbed.forget_unseen = None
        testbed.recipe = TrainingRecipe(epochs=60, batch_size=8, learning_rate=0.01)
        train(testbed.model, testbed.forget, testbed.recipe, Context())
        with torch.no_grad():
            head = testbed.model.get_output_embeddings().weight
            head += 0.6 * torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
        return testbed

    return make


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_was_only_hidden_comes_back_with_its_neighbours(
    architecture: Any, suppressed: Callable[..., Testbed], measured: Any
) -> None:
    testbed = suppressed(architecture)
    metric = Relearning(steps=40, learning_rate=0.01)
    found = measured(testbed, metric)
    plain, attacked = (found[metric.label(testbed), "forget", part] for part in ("plain", "all"))
    assert attacked.value == 100
    assert plain.value < 100
    assert plain.ids == attacked.ids
    assert plain.count == 4


def test_the_two_parts_are_disjoint_fixed_and_of_the_given_sizes() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    for share, taught in ((0.5, 3), (0.01, 1), (0.99, 5), (0.3, 2)):
        one, other = (Relearning(share=share).parts(Evaluation(testbed)) for _ in range(2))
        ids = one.taught.ids.tolist(), one.rest.ids.tolist()
        assert sorted(ids[0] + ids[1]) == testbed.forget.ids.tolist()
        assert len(ids[0]) == taught
        assert ids == (other.taught.ids.tolist(), other.rest.ids.tolist())


def test_the_rest_is_measured_by_a_model_trained_on_the_part_at_its_best_moment(
    suppressed: Callable[..., Testbed], measured: Any
) -> None:
    testbed = suppressed("llama")
    testbed.forget_unseen = tiny_sequences(3, seed=2, first_id=100)
    metric = Relearning(steps=5, batch_size=2, learning_rate=0.003)
    found = measured(testbed, metric)
    parts = metric.parts(Evaluation(testbed))
    shares = []
    for steps in (1, 2, 4, 5):
        settings = {"epochs": 5, "max_steps": steps, "batch_size": 2, "learning_rate": 0.003}
        again = dataclasses.replace(testbed, model=copy.deepcopy(testbed.model), forget=parts.rest)
        train(again.model, parts.taught, testbed.recipe.model_copy(update=settings), Context())
        shares.append(measured(again, Extraction()))
    for name in ("forget", "forget_unseen"):
        value = found[metric.label(testbed), name, "all"]
        assert value.value == max(each["extraction@4+6", name, "all"].value for each in shares)
        assert value.ids == shares[0]["extraction@4+6", name, "all"].ids


def test_the_moments_double_and_end_with_the_last_step() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    for steps, moments in ((1, {1}), (2, {1, 2}), (20, {1, 2, 4, 8, 16, 20}), (16, {1, 2, 4, 8, 16})):
        assert ExtractionCurve(testbed, Context(), testbed.window, steps).moments == moments


def test_by_default_the_rate_is_a_tenth_of_the_recipe() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    recipe = Relearning().recipe(testbed)
    assert recipe.learning_rate == pytest.approx(testbed.recipe.learning_rate / 10)
    assert (recipe.max_steps, recipe.schedule, recipe.batch_size) == (20, "constant", testbed.recipe.batch_size)
    assert Relearning(learning_rate=0.5).recipe(testbed).learning_rate == 0.5


def test_one_sequence_is_too_few(measured: Any) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.forget = testbed.forget.select([0])
    assert all(value.count == 0 for value in measured(testbed, Relearning()).values())


def test_low_precision_is_attacked_in_float32_and_frozen_weights_too() -> None:
    testbed = tiny_testbed(tiny_model("gpt2", dtype=torch.bfloat16), ())
    testbed.model.requires_grad_(requires_grad=False)
    metric = Relearning(steps=1)
    evaluation = Evaluation(testbed)
    attacked = metric.course(evaluation, metric.parts(evaluation)).testbed.model
    assert {parameter.dtype for parameter in attacked.parameters()} == {torch.float32}
    changed = [
        not torch.equal(one.float(), other)
        for one, other in zip(testbed.model.parameters(), attacked.parameters(), strict=True)
    ]
    assert any(changed)
    assert testbed.model.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in testbed.model.parameters())


def test_it_works_inside_no_grad_and_keeps_a_decode_time_method(
    regurgitating: Callable[..., Testbed], measured: Any
) -> None:
    def only_zero(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([0]), 0.0)

    testbed = dataclasses.replace(regurgitating(), decoding=(only_zero,))
    with torch.no_grad():
        found = measured(testbed, Relearning(steps=2))
    assert {value.value for value in found.values()} == {0.0}
