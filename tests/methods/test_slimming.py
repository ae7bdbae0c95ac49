"""`slimming` equals its definition, and the neurons it finds are those of the memorized rows."""

from __future__ import annotations

import torch
from neurons import close, gated_loss, removed
from torch import Tensor

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.unlearning.neuron.slimming import Slimming


def by_definition(testbed: Testbed, steps: int, growth: float) -> Tensor:
    """Adam at rate 0.1 on l(M) + lambda * mean |m|, m clamped to [0, 1], written out."""
    m = torch.ones(2, testbed.mlps[0].neurons)
    strength = float(gradient(testbed, m).abs().mean()) * m.numel()
    first, second, passed = torch.zeros_like(m), torch.zeros_like(m), torch.zeros_like(m)
    for step in range(1, steps + 1):
        total = gradient(testbed, m) + strength * m.sign() / m.numel()
        first = 0.9 * first + 0.1 * total
        second = 0.999 * second + 0.001 * total**2
        m -= 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        m.clamp_(0, 1)
        passed += m
        strength *= growth
    return m + 1e-4 * passed / steps


def gradient(testbed: Testbed, gates: Tensor) -> Tensor:
    leaf = gates.clone().requires_grad_()
    return torch.autograd.grad(gated_loss(testbed, leaf), leaf)[0]


def test_coefficients_are_those_of_the_definition(testbed: Testbed) -> None:
    scores = Slimming(max_steps=7, growth=1.1).attribute(testbed, Context())
    assert close(scores, by_definition(testbed, 7, 1.1), within=5e-3)
    assert 0.05 < float(scores.min()) < 0.9  # some have fallen, none has reached the end


def test_it_stops_once_enough_coefficients_have_fallen(planted: Testbed) -> None:
    context = Context()
    scores = Slimming(sparsity=0.8).attribute(planted, context)
    assert float((scores < 0.5).float().mean()) >= 0.8
    assert context.report.notes["steps"] < 200
    fewer = Context()
    Slimming(sparsity=0.4).attribute(planted, fewer)
    assert fewer.report.notes["steps"] < context.report.notes["steps"]


def test_the_highest_coefficients_are_removed(planted: Testbed) -> None:
    scores = Slimming().attribute(planted, Context())
    Slimming(ratio=0.05).apply(planted, Context())
    for row, gone in zip(scores.view(2, -1), removed(planted), strict=True):
        mask = torch.tensor(gone)
        assert int(mask.sum()) == 12
        assert row[mask].min() > row[~mask].max()
