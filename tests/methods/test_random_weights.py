"""`random_weights` removes exactly the asked number of weights of every matrix, blindly and by the seed."""

from __future__ import annotations

import dataclasses

import torch
from naive import matrix_weights

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.unlearning.weight.random_weights import RandomWeights


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
