"""`hard_concrete` equals its definition, and the neurons it finds are those of the memorized rows."""

from __future__ import annotations

import math

import pytest
import torch
from neurons import close, gated_loss
from torch import Tensor

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.unlearning.neuron.hard_concrete import HardConcrete


def by_definition(testbed: Testbed, context: Context, steps: int, growth: float) -> Tensor:
    """Equations 10 to 12 of Louizos et al. with b = 2/3, c = -0.1, d = 1.1, and torch's own Adam."""
    generator = context.generator("hard_concrete")
    shape = (2, testbed.mlps[0].neurons)
    ones = torch.ones(shape, requires_grad=True)
    strength = float(torch.autograd.grad(gated_loss(testbed, ones), ones)[0].abs().sum())
    log_alpha = torch.full(shape, 1.0, requires_grad=True)
    adam = torch.optim.Adam([log_alpha], lr=0.1)
    passed = torch.zeros(shape)
    for _ in range(steps):
        torch.randperm(len(testbed.forget), generator=generator)  # the order of the rows, all in one batch
        u = torch.rand(shape, generator=generator)
        s = 1 / (1 + torch.exp(-(torch.log(u) - torch.log(1 - u) + log_alpha) / (2 / 3)))
        gates = torch.minimum(torch.ones(()), torch.maximum(torch.zeros(()), s * 1.2 - 0.1))
        open_probability = 1 / (1 + torch.exp(-(log_alpha - 2 / 3 * math.log(0.1 / 1.1))))
        adam.zero_grad()
        (gated_loss(testbed, gates) + strength * open_probability.mean()).backward(inputs=[log_alpha])
        adam.step()
        passed += torch.sigmoid(log_alpha.detach() - 2 / 3 * math.log(0.1 / 1.1))
        strength *= growth
    return torch.sigmoid(log_alpha.detach() - 2 / 3 * math.log(0.1 / 1.1)) + 1e-4 * passed / steps


def test_open_probabilities_are_those_of_the_definition(testbed: Testbed) -> None:
    context = Context(seed=5)
    scores = HardConcrete(max_steps=8, growth=1.1).attribute(testbed, context)
    assert close(scores, by_definition(testbed, context, 8, 1.1), within=5e-3)
    assert float(scores.std()) > 0.01


def test_gates_are_often_exactly_shut_and_as_often_as_they_say() -> None:
    method = HardConcrete()
    parameter = torch.full((40, 500), -1.0)
    gates = method.gates(parameter, torch.Generator().manual_seed(0))
    assert float(gates.min()) == 0
    assert float(gates.max()) <= 1
    assert float((gates > 0).float().mean()) == pytest.approx(float(method.openness(parameter)[0, 0]), abs=0.01)
