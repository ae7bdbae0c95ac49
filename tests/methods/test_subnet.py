"""`subnet` equals its algorithm, written with autograd through an explicit mask and full sorts."""

from __future__ import annotations

import torch
from naive import changed
from naive_subnet import first_scores, learned

from unmemorize import Context, Testbed
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


def test_it_sees_the_forget_set_only(testbed: Testbed) -> None:
    blind = testbed.shown_to("subnet", Subnet.needs)
    masks = Subnet(**SETTINGS).masks(blind, Context(seed=5))
    assert sum(int(mask.sum()) for mask in masks.values()) > 0


def test_bfloat16_weights_have_float32_scores_and_are_restored_exactly(testbed: Testbed) -> None:
    testbed.model.to(torch.bfloat16)
    masks: dict[str, torch.Tensor] = {}
    edits = changed(testbed, lambda: masks.update(Subnet(**SETTINGS).masks(testbed, Context())))
    assert not any(mask.any() for mask in edits.values())
    assert all(int(mask.sum()) == int(0.1 * mask.numel()) for mask in masks.values())
