"""`durable` equals its definition: one gradient per sequence, a full sort per matrix."""

from __future__ import annotations

import pytest
import torch
from naive import changed, matrix_weights, row_loss, rows_of, top_by_sort

from unmemorize import Context, Testbed
from unmemorize.errors import SelectionError
from unmemorize_plugins.methods.unlearning.weight.durable import Durable


def by_definition(testbed: Testbed, tokens: str) -> dict[str, torch.Tensor]:
    """|sum over sequences of the gradient of the sequence's mean loss|."""
    weights = matrix_weights(testbed)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row, start in rows_of(testbed.forget):
        loss = row_loss(testbed.model, row, start if tokens == "suffix" else 1)
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            sums[name] += gradient
    return {name: value.abs() for name, value in sums.items()}


@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_score_is_its_definition(testbed: Testbed, tokens: str) -> None:
    expected = by_definition(testbed, tokens)
    scores = Durable(tokens=tokens, batch_size=4).score(testbed, Context())
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        assert torch.allclose(score, expected[name], rtol=1e-3, atol=1e-5), name


def test_the_top_share_of_every_matrix_is_zero_and_nothing_else_changed(testbed: Testbed) -> None:
    expected = by_definition(testbed, "all")
    edits = changed(testbed, lambda: Durable(ratio=0.02).apply(testbed, Context()))
    weights = matrix_weights(testbed)
    for name, mask in edits.items():
        if name in weights:
            assert torch.equal(mask, top_by_sort(expected[name], int(0.02 * mask.numel()))), name
            assert (weights[name][mask] == 0).all()
        else:
            assert not mask.any(), name


def test_no_gradient_is_left_behind(testbed: Testbed) -> None:
    Durable().apply(testbed, Context())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in testbed.model.parameters())


def test_bfloat16_weights_are_summed_in_float32(testbed: Testbed) -> None:
    testbed.model.to(torch.bfloat16)
    scores = Durable().score(testbed, Context())
    assert {score.dtype for score in scores.values()} == {torch.float32}
    assert all(torch.isfinite(score).all() and score.sum() > 0 for score in scores.values())


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match="selects 0 of"):
        Durable(ratio=1e-5).apply(testbed, Context())
