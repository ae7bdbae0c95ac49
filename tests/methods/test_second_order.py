"""`second_order` equals its definition: dense blocks from one autograd gradient per sequence, inverted one by one."""

from __future__ import annotations

import pytest
import torch
from naive import matrix_weights, row_loss, rows_of

from unmemorize import Context, Testbed
from unmemorize.toolkit import matrices_of, visit_sequence_gradients
from unmemorize_plugins.methods.unlearning.weight.second_order import SecondOrder

DAMP = 1e-7


def single_gradients(testbed: Testbed, tokens: str) -> dict[str, list[torch.Tensor]]:
    """For every matrix, the gradient of each sequence's mean loss, in the parameter's own shape."""
    weights = matrix_weights(testbed)
    found: dict[str, list[torch.Tensor]] = {name: [] for name in weights}
    for row, start in rows_of(testbed.forget):
        loss = row_loss(testbed.model, row, start if tokens == "suffix" else 1)
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            found[name].append(gradient)
    return found


def by_definition(testbed: Testbed, tokens: str, block: int) -> dict[str, torch.Tensor]:
    """w^2 / (2 [F^-1]_ww), one block after another."""
    conv = testbed.model.config.model_type == "gpt2"
    saliencies = {}
    for name, gradients in single_gradients(testbed, tokens).items():
        weight = matrix_weights(testbed)[name].detach()
        outputs_first = weight.T if conv else weight
        w = outputs_first.flatten().double()
        g = torch.stack([(gradient.T if conv else gradient).flatten() for gradient in gradients]).double()
        values = torch.zeros_like(w)
        for start in range(0, len(w), block):
            part = slice(start, min(start + block, len(w)))
            F = sum(torch.outer(x, x) for x in g[:, part]) / len(g)
            F = F + DAMP * F.diagonal().mean() * torch.eye(len(F))
            if F.any():
                values[part] = w[part] ** 2 / (2 * torch.linalg.inv(F).diagonal())
        values = values.view(outputs_first.shape)
        saliencies[name] = (values.T if conv else values).float()
    return saliencies


@pytest.mark.parametrize(("tokens", "block"), [("all", 50), ("suffix", 50), ("all", 3)])
def test_score_is_its_definition(testbed: Testbed, tokens: str, block: int) -> None:
    expected = by_definition(testbed, tokens, block)
    scores = SecondOrder(tokens=tokens, batch_size=4, block=block).score(testbed, Context())
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        assert score.shape == expected[name].shape
        assert torch.allclose(score, expected[name], rtol=5e-3, atol=1e-4 * expected[name].max()), name


def test_gradients_of_single_sequences_come_from_one_pass(testbed: Testbed) -> None:
    expected = single_gradients(testbed, "all")
    seen: dict[str, torch.Tensor] = {}
    matrices = list(matrices_of(testbed.mlps).values())
    losses = visit_sequence_gradients(testbed.model, testbed.forget, matrices, lambda m, g: seen.update({m.name: g}))
    assert losses.tolist() == pytest.approx([row_loss(testbed.model, row).item() for row, _ in rows_of(testbed.forget)])
    for matrix in matrices:
        for found, gradient in zip(seen[matrix.name], expected[matrix.name], strict=True):
            assert torch.allclose(found, gradient.T if matrix.stores_input_first else gradient, rtol=1e-3, atol=1e-5)


def test_less_memory_means_more_passes_and_the_same_scores(testbed: Testbed) -> None:
    matrices = list(matrices_of(testbed.mlps).values())
    largest = max(8 * 50 * matrix.weight.numel() for matrix in matrices)
    roomy, tight = SecondOrder(), SecondOrder(memory=2 * largest / 2**30)
    tightest = SecondOrder(memory=1e-9)
    assert [len(method.passes(matrices)) for method in (roomy, tight, tightest)] == [
        1,
        len(matrices) // 2,
        len(matrices),
    ]
    scores = roomy.score(testbed, Context())
    assert all(torch.allclose(score, scores[name]) for name, score in tightest.score(testbed, Context()).items())


def test_a_larger_forget_set_is_sampled_by_the_seed(testbed: Testbed) -> None:
    method = SecondOrder(samples=4)
    first, again, other = (method.sample(testbed.forget, Context(seed=seed)).ids.tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 4
    assert SecondOrder().sample(testbed.forget, Context()).ids.tolist() == testbed.forget.ids.tolist()


def test_a_block_without_gradients_has_no_saliency_and_does_no_harm(testbed: Testbed) -> None:
    mlp = testbed.mlps[0]
    mlp.down.by_input().data[:] = 0.0  # nothing that enters the first MLP's `up` has an effect
    scores = SecondOrder().score(testbed, Context())
    assert not scores[mlp.up.name].any()
    assert scores[testbed.mlps[1].up.name].any()
    assert all(torch.isfinite(score).all() for score in scores.values())


def test_no_gradient_and_no_hook_is_left_behind_also_after_a_failure(testbed: Testbed) -> None:
    SecondOrder().apply(testbed, Context())

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    matrices = list(matrices_of(testbed.mlps).values())
    with pytest.raises(RuntimeError, match="in the middle"):
        visit_sequence_gradients(testbed.model, testbed.forget, matrices, fail)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in testbed.model.parameters())
    assert not any(module._forward_hooks for module in testbed.model.modules())
