"""`durable` and `durable_aggregate` equal their definition: one gradient per sequence."""

from __future__ import annotations

import pytest
import torch
from naive import matrix_weights, row_loss, rows_of

from unmemorize import Context, Testbed, WeightUnlearning
from unmemorize_plugins.methods.unlearning.weight.durable import Durable
from unmemorize_plugins.methods.unlearning.weight.durable_aggregate import DurableAggregate


def by_definition(testbed: Testbed, tokens: str) -> dict[str, torch.Tensor]:
    """|sum over sequences of the gradient of the sequence's mean loss|."""
    weights = matrix_weights(testbed)
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row, start in rows_of(testbed.forget):
        loss = row_loss(testbed.model, row, start if tokens == "suffix" else 1)
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            sums[name] += gradient
    return {name: value.abs() for name, value in sums.items()}


@pytest.mark.parametrize("method", [Durable, DurableAggregate], ids=lambda method: method.name)
@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_score_is_its_definition(testbed: Testbed, method: type[WeightUnlearning], tokens: str) -> None:
    expected = by_definition(testbed, tokens)
    scores = method(tokens=tokens, batch_size=4).score(testbed, Context())
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        assert torch.allclose(score, expected[name], rtol=1e-3, atol=1e-5), name
