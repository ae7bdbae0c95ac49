"""`balanced_subnet` equals its algorithm, written with autograd through an explicit mask and full sorts."""

from __future__ import annotations

import pytest
import torch
from naive import changed, matrix_weights
from naive_subnet import first_scores, learned

from unmemorize import Context, DivergedError, Testbed
from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet

SETTINGS = {"ratio": 0.1, "epochs": 2, "beta": 0.7, "batch_size": 8, "learning_rate": 0.1}


def by_definition(testbed: Testbed, context: Context) -> dict[str, torch.Tensor]:
    """Which weights are removed after 2 epochs of 2 steps: 16 rows, 8 at a time."""
    generator = context.generator("mask scores")
    scores = first_scores(testbed, generator)
    method = BalancedSubnet(**SETTINGS)
    steps = (
        [(-(1 - 0.7), forget), (0.7, retain)]
        for _ in range(2)
        for forget, retain in method.stratified(testbed.forget, testbed.retain, 2, generator)
    )
    return learned(testbed, scores, 0.1, steps)


def test_the_learned_mask_is_that_of_the_algorithm(testbed: Testbed) -> None:
    expected = by_definition(testbed, Context(seed=5))
    masks = BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=5))
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), f"{name}: {int((mask != expected[name]).sum())} differ"


def test_masked_weights_are_zero_and_all_others_as_before(testbed: Testbed) -> None:
    masks = BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=5))
    edits = changed(testbed, lambda: BalancedSubnet(**SETTINGS).apply(testbed, Context(seed=5)))
    weights = matrix_weights(testbed)
    for name, mask in edits.items():
        assert torch.equal(mask, masks[name]) if name in masks else not mask.any()
        assert (weights[name][mask] == 0).all() if name in masks else True


def test_every_step_has_rows_of_both_sets_and_rows_come_equally_often(testbed: Testbed) -> None:
    method = BalancedSubnet(batch_size=4)
    steps = list(method.stratified(testbed.forget, testbed.retain, 20, torch.Generator().manual_seed(0)))
    assert all(len(forget) >= 1 and len(retain) >= 1 and len(forget) + len(retain) == 4 for forget, retain in steps)
    for name, part in (("forget", 0), ("retain", 1)):
        seen = torch.cat([step[part].ids for step in steps])
        counts = [int((seen == i).sum()) for i in getattr(testbed, name).ids]
        assert max(counts) - min(counts) <= 1


def test_one_row_to_forget_among_many_is_in_every_step(testbed: Testbed) -> None:
    only = testbed.forget.select([0])
    steps = list(BalancedSubnet(batch_size=2).stratified(only, testbed.retain, 9, torch.Generator()))
    assert all(step[0].ids.tolist() == only.ids.tolist() for step in steps)


def test_divergence_is_an_error_and_the_model_is_restored(testbed: Testbed) -> None:
    before = {name: p.detach().clone() for name, p in testbed.model.named_parameters()}
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    with pytest.raises(DivergedError, match="not finite at step 0"):
        BalancedSubnet(**SETTINGS).apply(testbed, Context())
    weights = matrix_weights(testbed)
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_the_seed_decides(testbed: Testbed) -> None:
    first, again, other = (BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
