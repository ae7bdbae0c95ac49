"""`hard_concrete` equals its definition, and the neurons it finds are those of the memorized rows."""

from __future__ import annotations

import math

import pytest
import torch
from naive import down_module, row_loss, rows_of
from neurons import Harm, close, copy_of, correlation, extracted, left_untouched, overlap
from torch import Tensor

from unmemorize import Context, DivergedError, Testbed
from unmemorize.errors import DeadlineExceeded, SelectionError
from unmemorize_plugins.methods.unlearning.neuron.hard_concrete import HardConcrete
from unmemorize_plugins.methods.unlearning.neuron.random_neurons import RandomNeurons


def gated_loss(testbed: Testbed, gates: Tensor) -> Tensor:
    handles = [
        down_module(testbed, layer).register_forward_pre_hook(lambda _, inputs, g=gates[layer]: (inputs[0] * g,))
        for layer in range(2)
    ]
    losses = [row_loss(testbed.model, row, start) for row, start in rows_of(testbed.forget)]
    for handle in handles:
        handle.remove()
    return torch.stack(losses).mean()


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


def test_it_stops_once_enough_gates_have_shut(planted: Testbed) -> None:
    context = Context()
    scores = HardConcrete(sparsity=0.8).attribute(planted, context)
    assert float((scores < 0.5).float().mean()) >= 0.8
    assert context.report.notes["steps"] < 200


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.2])
def test_gates_separate_so_that_no_tie_decides(planted: Testbed, ratio: float) -> None:
    context = Context()
    HardConcrete(ratio=ratio).apply(planted, context)
    assert "tie-broken" not in context.report.flags


def test_neurons_of_the_memorized_rows_are_others_than_those_of_regular_rows(planted: Testbed) -> None:
    harm = Harm(planted, ratio=0.2)
    of_memorized = harm.of(HardConcrete)
    of_regular = harm.of(HardConcrete, shown=planted.retain)
    assert overlap(of_memorized.removed, of_regular.removed) < 0.3
    assert of_memorized.forget_loss > 1.5 * of_regular.forget_loss


def test_removing_them_harms_the_memorized_rows_more_than_removing_random_ones(planted: Testbed) -> None:
    harm = Harm(planted, ratio=0.2)
    draws = [harm.of(RandomNeurons, seed=seed).forget_loss for seed in range(5)]
    assert harm.of(HardConcrete).forget_loss > 3 * sum(draws) / len(draws)


def test_removing_them_lowers_extraction_more_than_removing_random_ones(planted: Testbed) -> None:
    left = []
    for method, seed in [(HardConcrete, 0), *[(RandomNeurons, seed) for seed in range(3)]]:
        testbed = copy_of(planted)
        method(ratio=0.3).apply(testbed, Context(seed=seed))
        left.append(extracted(testbed))
    assert left[0] < sum(left[1:]) / 3 - 2


def test_the_model_is_left_as_it_was(testbed: Testbed) -> None:
    with left_untouched(testbed):
        HardConcrete(max_steps=5).attribute(testbed, Context())
    with left_untouched(testbed), pytest.raises(DeadlineExceeded):
        HardConcrete().attribute(testbed, Context(deadline=0.0))


def test_the_seed_decides_the_draws(testbed: Testbed) -> None:
    first, again = (HardConcrete(max_steps=5).attribute(testbed, Context(seed=3)) for _ in range(2))
    other = HardConcrete(max_steps=5).attribute(testbed, Context(seed=4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bfloat16_gives_float32_scores_near_the_exact_ones(testbed: Testbed) -> None:
    exact = HardConcrete(max_steps=8).attribute(testbed, Context())
    testbed.model.to(torch.bfloat16)
    scores = HardConcrete(max_steps=8).attribute(testbed, Context())
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert correlation(scores, exact) > 0.9


def test_divergence_is_an_error_with_a_reason(testbed: Testbed) -> None:
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    with pytest.raises(DivergedError, match="hard_concrete diverged"):
        HardConcrete().apply(testbed, Context())


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match="selects 0 of"):
        HardConcrete(ratio=0.001, max_steps=5).apply(testbed, Context())
