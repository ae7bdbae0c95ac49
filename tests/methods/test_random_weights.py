"""`random_weights` removes exactly the asked number of weights of every matrix, blindly and by the seed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from naive import changed, matrix_weights

from unmemorize import Context, Testbed
from unmemorize.errors import SelectionError
from unmemorize_plugins.methods.unlearning.weight.random_weights import RandomWeights


def test_the_share_of_every_matrix_is_zero_and_nothing_else_changed(testbed: Testbed) -> None:
    context = Context()
    edits = changed(testbed, lambda: RandomWeights(ratio=0.1).apply(testbed, context))
    weights = matrix_weights(testbed)
    for name, mask in edits.items():
        assert int(mask.sum()) == (int(0.1 * mask.numel()) if name in weights else 0), name
        assert (weights[name][mask] == 0).all() if name in weights else True
    assert context.report.notes["selected_weights"] == sum(int(mask.sum()) for mask in edits.values())


def test_every_weight_is_as_likely_as_any_other(testbed: Testbed) -> None:
    times = {name: torch.zeros(weight.shape) for name, weight in matrix_weights(testbed).items()}
    for seed in range(200):
        for name, mask in RandomWeights(ratio=0.25).masks(testbed, Context(seed=seed)).items():
            times[name] += mask
    for name, seen in times.items():
        assert seen.min() > 18, name  # mean 50, standard deviation 6.1
        assert seen.max() < 82, name


def test_it_looks_at_no_data(testbed: Testbed) -> None:
    masks = RandomWeights().masks(testbed, Context(seed=1))
    blind = RandomWeights().masks(testbed.shown_to("random_weights", RandomWeights.needs), Context(seed=1))
    assert all(torch.equal(mask, blind[name]) for name, mask in masks.items())
    nothing = dataclasses.replace(testbed, forget=testbed.forget.select([]), retain=None)
    assert RandomWeights().supports(nothing) is None


def test_the_seed_decides(testbed: Testbed) -> None:
    first, again, other = (RandomWeights().masks(testbed, Context(seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed) -> None:
    with pytest.raises(SelectionError, match="selects 0 of"):
        RandomWeights(ratio=1e-5).apply(testbed, Context())
