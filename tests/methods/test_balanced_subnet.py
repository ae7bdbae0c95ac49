"""`balanced_subnet` equals its algorithm, written with autograd through an explicit mask and full sorts."""

from __future__ import annotations

import math

import pytest
import torch
from naive import changed, matrix_weights, row_loss, rows_of, top_by_sort
from torch.func import functional_call

from unmemorize import Context, DivergedError, Testbed
from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet

SETTINGS = {"ratio": 0.1, "epochs": 2, "beta": 0.7, "batch_size": 8, "learning_rate": 0.1}


class StraightThrough(torch.autograd.Function):
    """The mask of all but the `count` smallest, by a full sort; its gradient is passed on as it is."""

    @staticmethod
    def forward(ctx: object, sizes: torch.Tensor, count: int) -> torch.Tensor:
        return (~top_by_sort(-sizes, count)).to(sizes)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


class Called(torch.nn.Module):
    """A model seen through replaced weights."""

    def __init__(self, model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.inner, self.weights = (model,), weights

    def forward(self, input_ids: torch.Tensor) -> object:
        return functional_call(self.inner[0], self.weights, (), {"input_ids": input_ids})


def by_definition(testbed: Testbed, context: Context) -> dict[str, torch.Tensor]:
    """Which weights are removed, after training the scores with plain autograd."""
    generator = context.generator("subnet")
    weights = {name: weight.detach() for name, weight in matrix_weights(testbed).items()}
    scores = {}
    for name in [matrix.name for mlp in testbed.mlps for matrix in mlp.matrices]:
        conv = testbed.model.config.model_type == "gpt2"
        outputs, inputs = reversed(weights[name].shape) if conv else weights[name].shape
        bound = math.sqrt(6 / ((1 + 5) * inputs))  # Kaiming-uniform, a = sqrt(5)
        drawn = (torch.rand((outputs, inputs), generator=generator) * 2 - 1) * bound
        scores[name] = (drawn.T.clone() if conv else drawn).requires_grad_()
    velocity = {name: torch.zeros_like(score) for name, score in scores.items()}
    method = BalancedSubnet(**SETTINGS)
    for _ in range(2):
        for forget, retain in method.stratified(testbed.forget, testbed.retain, 2, generator):
            masked = {n: weights[n] * StraightThrough.apply(s.abs(), int(0.1 * s.numel())) for n, s in scores.items()}
            model = Called(testbed.model, masked)
            lost = torch.stack([row_loss(model, row) for row, _ in rows_of(forget)]).mean()
            kept = torch.stack([row_loss(model, row) for row, _ in rows_of(retain)]).mean()
            gradients = torch.autograd.grad(-(1 - 0.7) * lost + 0.7 * kept, list(scores.values()))
            for (name, score), gradient in zip(scores.items(), gradients, strict=True):
                velocity[name] = 0.9 * velocity[name] + gradient + 5e-4 * score.detach()
                score.data -= 0.1 * velocity[name]
    return {name: top_by_sort(-score.detach().abs(), int(0.1 * score.numel())) for name, score in scores.items()}


def test_the_learned_mask_is_that_of_the_algorithm(testbed: Testbed) -> None:
    expected = by_definition(testbed, Context(seed=5))
    masks = BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=5))
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), (
            f"{name}: {int((mask != expected[name]).sum())} of {mask.numel()} differ"
        )


def test_masked_weights_are_zero_and_all_others_as_before(testbed: Testbed) -> None:
    masks = BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=5))
    edits = changed(testbed, lambda: BalancedSubnet(**SETTINGS).apply(testbed, Context(seed=5)))
    weights = matrix_weights(testbed)
    for name, mask in edits.items():
        assert torch.equal(mask, masks[name]) if name in masks else not mask.any()
        assert (weights[name][mask] == 0).all() if name in masks else True


def test_every_step_has_rows_of_both_sets_and_rows_come_equally_often(testbed: Testbed) -> None:
    method = BalancedSubnet(batch_size=4)
    steps = list(method.stratified(testbed.forget, testbed.retain, 20, torch.Generator().manual_seed(0)))
    assert all(len(forget) >= 1 and len(retain) >= 1 and len(forget) + len(retain) == 4 for forget, retain in steps)
    for name, part in (("forget", 0), ("retain", 1)):
        seen = torch.cat([step[part].ids for step in steps])
        counts = [int((seen == i).sum()) for i in getattr(testbed, name).ids]
        assert max(counts) - min(counts) <= 1


def test_one_row_to_forget_among_many_is_in_every_step(testbed: Testbed) -> None:
    only = testbed.forget.select([0])
    steps = list(BalancedSubnet(batch_size=2).stratified(only, testbed.retain, 9, torch.Generator()))
    assert all(step[0].ids.tolist() == only.ids.tolist() for step in steps)


def test_divergence_is_an_error_and_the_model_is_put_back(testbed: Testbed) -> None:
    before = {name: p.detach().clone() for name, p in testbed.model.named_parameters()}
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    with pytest.raises(DivergedError, match="not finite at step 0"):
        BalancedSubnet(**SETTINGS).apply(testbed, Context())
    weights = matrix_weights(testbed)
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_the_seed_decides(testbed: Testbed) -> None:
    first, again, other = (BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
