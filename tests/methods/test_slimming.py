"""`slimming` equals its definition, and the neurons it finds are those of the memorized rows."""

from __future__ import annotations

import pytest
import torch
from naive import down_module, row_loss, rows_of
from neurons import Harm, close, copy_of, correlation, extracted, left_untouched, overlap, removed
from torch import Tensor

from unmemorize import Context, DivergedError, Testbed
from unmemorize.errors import DeadlineExceeded, SelectionError
from unmemorize_plugins.methods.unlearning.neuron.random_neurons import RandomNeurons
from unmemorize_plugins.methods.unlearning.neuron.slimming import Slimming


def gated_loss(testbed: Testbed, gates: Tensor) -> Tensor:
    """Mean suffix loss of the forget set with every neuron multiplied by its gate."""
    handles = [
        down_module(testbed, layer).register_forward_pre_hook(lambda _, inputs, g=gates[layer]: (inputs[0] * g,))
        for layer in range(2)
    ]
    losses = [row_loss(testbed.model, row, start) for row, start in rows_of(testbed.forget)]
    for handle in handles:
        handle.remove()
    return torch.stack(losses).mean()


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


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.2])
def test_coefficients_separate_so_that_no_tie_decides(planted: Testbed, ratio: float) -> None:
    context = Context()
    Slimming(ratio=ratio).apply(planted, context)
    assert "tie-broken" not in context.report.flags


def test_neurons_of_the_memorized_rows_are_others_than_those_of_regular_rows(planted: Testbed) -> None:
    harm = Harm(planted, ratio=0.2)
    of_memorized = harm.of(Slimming)
    of_regular = harm.of(Slimming, shown=planted.retain)
    assert overlap(of_memorized.removed, of_regular.removed) < 0.5
    assert overlap(of_memorized.removed, harm.of(Slimming, seed=1).removed) > 0.5
    assert of_memorized.retain_loss < of_regular.retain_loss / 1.25


def test_removing_them_harms_the_memorized_rows_more_than_removing_random_ones(planted: Testbed) -> None:
    harm = Harm(planted, ratio=0.2)
    draws = [harm.of(RandomNeurons, seed=seed).forget_loss for seed in range(5)]
    assert harm.of(Slimming).forget_loss > 2 * sum(draws) / len(draws)


def test_removing_them_lowers_extraction_more_than_removing_random_ones(planted: Testbed) -> None:
    assert extracted(planted) == len(planted.forget)
    left = []
    for method, seed in [(Slimming, 0), *[(RandomNeurons, seed) for seed in range(3)]]:
        testbed = copy_of(planted)
        method(ratio=0.3).apply(testbed, Context(seed=seed))
        left.append(extracted(testbed))
    assert left[0] < sum(left[1:]) / 3 - 2


def test_the_model_is_left_as_it_was(testbed: Testbed) -> None:
    with left_untouched(testbed):
        Slimming(max_steps=5).attribute(testbed, Context())
    with left_untouched(testbed), pytest.raises(DeadlineExceeded):
        Slimming().attribute(testbed, Context(deadline=0.0))


def test_the_seed_decides_the_order_of_the_rows_and_nothing_else(testbed: Testbed) -> None:
    first, again = (Slimming(max_steps=5, batch_size=2).attribute(testbed, Context(seed=3)) for _ in range(2))
    other = Slimming(max_steps=5, batch_size=2).attribute(testbed, Context(seed=4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bfloat16_gives_float32_scores_near_the_exact_ones(testbed: Testbed) -> None:
    exact = Slimming(max_steps=5).attribute(testbed, Context())
    testbed.model.to(torch.bfloat16)
    scores = Slimming(max_steps=5).attribute(testbed, Context())
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert correlation(scores, exact) > 0.9


def test_divergence_is_an_error_with_a_reason(testbed: Testbed) -> None:
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    with pytest.raises(DivergedError, match="slimming diverged"):
        Slimming().apply(testbed, Context())


def test_the_highest_coefficients_are_removed(planted: Testbed) -> None:
    scores = Slimming().attribute(planted, Context())
    Slimming(ratio=0.05).apply(planted, Context())
    for row, gone in zip(scores, removed(planted), strict=True):
        mask = torch.tensor(gone)
        assert int(mask.sum()) == 12
        assert row[mask].min() > row[~mask].max()


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match="selects 0 of"):
        Slimming(ratio=0.001, max_steps=5).apply(testbed, Context())
