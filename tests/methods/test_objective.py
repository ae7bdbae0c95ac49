"""The objective of weight-level methods: one pass over all terms, and losses looked at now and then."""

from __future__ import annotations

import pytest
import torch
from naive import matrix_weights, row_loss, rows_of

from unmemorize import Testbed
from unmemorize.errors import DivergedError
from unmemorize.toolkit import Term
from unmemorize.unlearning.objective import LossWatch, objective_gradients


def test_the_objective_is_the_weighted_sum_of_mean_losses(testbed: Testbed) -> None:
    weights = matrix_weights(testbed)
    means = [
        torch.stack([row_loss(testbed.model, row) for row, _ in rows_of(rows)]).mean()
        for rows in (testbed.forget, testbed.retain)
    ]
    expected = -0.3 * means[0] + 0.7 * means[1]
    gradients = torch.autograd.grad(expected, list(weights.values()))
    found = objective_gradients(testbed, [Term(-0.3, testbed.forget), Term(0.7, testbed.retain)])
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, gradient in zip(weights, gradients, strict=True):
        assert torch.allclose(found.gradients[name], gradient, rtol=1e-3, atol=1e-5), name
    assert all(parameter.grad is None and parameter.requires_grad for parameter in testbed.model.parameters())


def test_losses_are_looked_at_together_and_the_first_bad_step_is_named() -> None:
    watch = LossWatch("learning", every=4)
    for loss in (1.0, 2.0, 3.0, 4.0, 5.0, torch.inf, torch.nan):
        watch.add(torch.tensor(loss))
    with pytest.raises(DivergedError, match="learning diverged: the loss is not finite at step 5"):
        watch.add(torch.tensor(1.0))


def test_the_last_losses_are_looked_at_in_the_end() -> None:
    watch = LossWatch("learning", every=4)
    watch.add(torch.tensor(torch.nan))
    with pytest.raises(DivergedError, match="step 0"):
        watch.look()
