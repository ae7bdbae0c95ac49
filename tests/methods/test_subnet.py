"""`subnet` equals its algorithm, written with autograd through an explicit mask and full sorts."""

from __future__ import annotations

import pytest
import torch
from naive import changed, matrix_weights
from naive_subnet import first_scores, learned

from unmemorize import Context, DivergedError, Testbed
from unmemorize.errors import DeadlineExceeded, SelectionError
from unmemorize.toolkit import shuffled_rows
from unmemorize_plugins.methods.unlearning.weight.subnet import Subnet

SETTINGS = {"ratio": 0.1, "epochs": 3, "batch_size": 4, "learning_rate": 0.1}


def by_definition(testbed: Testbed, context: Context) -> dict[str, torch.Tensor]:
    """Which weights are removed after 3 epochs of 2 steps: 6 rows, 4 at a time."""
    generator = context.generator("mask scores")
    scores = first_scores(testbed, generator)
    steps = ([(-1.0, rows)] for _ in range(3) for rows in shuffled_rows(testbed.forget, 4, 2, generator))
    return learned(testbed, scores, 0.1, steps)


def test_the_learned_mask_is_that_of_the_algorithm(testbed: Testbed) -> None:
    expected = by_definition(testbed, Context(seed=5))
    masks = Subnet(**SETTINGS).masks(testbed, Context(seed=5))
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), f"{name}: {int((mask != expected[name]).sum())} differ"


def test_masked_weights_are_zero_and_all_others_as_before(testbed: Testbed) -> None:
    masks = Subnet(**SETTINGS).masks(testbed, Context(seed=5))
    edits = changed(testbed, lambda: Subnet(**SETTINGS).apply(testbed, Context(seed=5)))
    weights = matrix_weights(testbed)
    for name, mask in edits.items():
        assert torch.equal(mask, masks[name]) if name in masks else not mask.any()
        assert (weights[name][mask] == 0).all() if name in masks else True
    assert all(parameter.grad is None and parameter.requires_grad for parameter in testbed.model.parameters())


def test_it_sees_the_forget_set_only(testbed: Testbed) -> None:
    blind = testbed.shown_to("subnet", Subnet.needs)
    masks = Subnet(**SETTINGS).masks(blind, Context(seed=5))
    assert sum(int(mask.sum()) for mask in masks.values()) > 0


def test_the_model_is_restored_when_time_is_up_or_the_loss_is_not_finite(testbed: Testbed) -> None:
    def fail() -> None:
        with pytest.raises(DeadlineExceeded, match="learning the mask"):
            Subnet(**SETTINGS).apply(testbed, Context(deadline=0.0))

    assert not any(mask.any() for mask in changed(testbed, fail).values())
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    with pytest.raises(DivergedError, match="not finite at step 0"):
        Subnet(**SETTINGS).apply(testbed, Context())


def test_bfloat16_weights_have_float32_scores_and_are_restored_exactly(testbed: Testbed) -> None:
    testbed.model.to(torch.bfloat16)
    masks: dict[str, torch.Tensor] = {}
    edits = changed(testbed, lambda: masks.update(Subnet(**SETTINGS).masks(testbed, Context())))
    assert not any(mask.any() for mask in edits.values())
    assert all(int(mask.sum()) == int(0.1 * mask.numel()) for mask in masks.values())


def test_the_seed_decides(testbed: Testbed) -> None:
    first, again, other = (Subnet(**SETTINGS).masks(testbed, Context(seed=s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match="selects 0 of"):
        Subnet(ratio=1e-5).apply(testbed, Context())
