"""`balanced_subnet` equals its algorithm, written with autograd through an explicit mask and full sorts."""

from __future__ import annotations

import torch
from naive_subnet import first_scores, learned

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet

SETTINGS = {"ratio": 0.1, "epochs": 2, "beta": 0.7, "batch_size": 8, "learning_rate": 0.1}


def by_definition(testbed: Testbed, context: Context) -> dict[str, torch.Tensor]:
    """Which weights are removed after 2 epochs of 2 steps: 16 rows, 8 at a time."""
    generator = context.generator("mask scores")
    scores = first_scores(testbed, generator)
    method = BalancedSubnet(**SETTINGS)
    steps = (
        [(-(1 - 0.7), forget.rows), (0.7, retain.rows)]
        for _ in range(2)
        for forget, retain in method.epoch(testbed, generator)
    )
    return learned(testbed, scores, 0.1, steps)


def test_the_learned_mask_is_that_of_the_algorithm(testbed: Testbed) -> None:
    expected = by_definition(testbed, Context(seed=5))
    masks = BalancedSubnet(**SETTINGS).masks(testbed, Context(seed=5))
    assert masks.keys() == expected.keys()
    for name, mask in masks.items():
        assert torch.equal(mask, expected[name]), f"{name}: {int((mask != expected[name]).sum())} differ"


def test_every_step_has_rows_of_both_sets_and_rows_come_equally_often(testbed: Testbed) -> None:
    method = BalancedSubnet(batch_size=4)
    steps = [[term.rows for term in step] for step in method.epoch(testbed, torch.Generator().manual_seed(0))]
    assert len(steps) == method.size(testbed).steps > 1
    assert all(len(forget) >= 1 and len(retain) >= 1 and len(forget) + len(retain) == 4 for forget, retain in steps)
    for name, part in (("forget", 0), ("retain", 1)):
        seen = torch.cat([step[part].ids for step in steps])
        counts = [int((seen == i).sum()) for i in getattr(testbed, name).ids]
        assert max(counts) - min(counts) <= 1


def test_one_row_to_forget_among_many_is_in_every_step(testbed: Testbed) -> None:
    only = testbed.forget.select([0])
    testbed.forget = only
    steps = list(BalancedSubnet(batch_size=2).epoch(testbed, torch.Generator()))
    assert all(step[0].rows.ids.tolist() == only.ids.tolist() for step in steps)
