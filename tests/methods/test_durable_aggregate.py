"""`durable_aggregate` equals its definition: one gradient per sequence, one full sort over all matrices."""

from __future__ import annotations

import pytest
import torch
from naive import changed, matrix_weights, row_loss, rows_of, top_by_sort

from unmemorize import Context, Testbed
from unmemorize.errors import SelectionError
from unmemorize_plugins.methods.unlearning.weight.durable_aggregate import DurableAggregate


def by_definition(testbed: Testbed, count: int) -> dict[str, torch.Tensor]:
    """The weights whose summed gradient is among the largest `count` of the whole model."""
    weights = matrix_weights(testbed)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row, _ in rows_of(testbed.forget):
        gradients = torch.autograd.grad(row_loss(testbed.model, row), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            sums[name] += gradient
    mask = top_by_sort(torch.cat([value.flatten().abs() for value in sums.values()]), count)
    parts = mask.split([value.numel() for value in sums.values()])
    return {name: part.view(weights[name].shape) for name, part in zip(sums, parts, strict=True)}


def test_the_top_share_of_the_whole_model_is_zero_and_nothing_else_changed(testbed: Testbed) -> None:
    weights = matrix_weights(testbed)
    count = int(0.02 * sum(weight.numel() for weight in weights.values()))
    expected = by_definition(testbed, count)
    shares = [mask.float().mean().item() for mask in expected.values()]
    assert max(shares) > 1.5 * min(shares)  # per matrix it would be another choice
    edits = changed(testbed, lambda: DurableAggregate(ratio=0.02, batch_size=4).apply(testbed, Context()))
    for name, mask in edits.items():
        if name in weights:
            assert torch.equal(mask, expected[name]), name
            assert (weights[name][mask] == 0).all()
        else:
            assert not mask.any(), name


def test_no_gradient_and_no_hook_is_left_behind(testbed: Testbed) -> None:
    DurableAggregate().apply(testbed, Context())
    for parameter in testbed.model.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert not parameter._post_accumulate_grad_hooks


def test_bfloat16_weights_are_summed_in_float32(testbed: Testbed) -> None:
    exact = DurableAggregate().score(testbed, Context())
    testbed.model.to(torch.bfloat16)
    for name, score in DurableAggregate().score(testbed, Context()).items():
        assert score.dtype == torch.float32
        assert torch.corrcoef(torch.stack([score.flatten(), exact[name].flatten()]))[0, 1] > 0.98


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match=r"selects 0 of \d+ units in the whole model"):
        DurableAggregate(ratio=1e-5).apply(testbed, Context())
