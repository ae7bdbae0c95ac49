"""`random_neurons` removes neurons that the seed decides, and every other neuron method does better than it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from naive import changed
from neurons import Harm, copy_of, overlap, removed

from unmemorize import Context, NeuronUnlearning, Sequences, Testbed
from unmemorize_plugins.methods.unlearning.neuron.activations import Activations
from unmemorize_plugins.methods.unlearning.neuron.integrated_gradients import IntegratedGradients
from unmemorize_plugins.methods.unlearning.neuron.random_neurons import RandomNeurons
from unmemorize_plugins.methods.unlearning.neuron.zero_out import ZeroOut


def test_the_share_of_every_layer_is_removed_and_nothing_else(testbed: Testbed) -> None:
    edits = changed(testbed, lambda: RandomNeurons(ratio=0.1).apply(testbed, Context()))
    gone = removed(testbed)
    assert [sum(layer) for layer in gone] == [int(0.1 * len(gone[0]))] * 2
    width = testbed.model.config.hidden_size
    assert sum(int(mask.sum()) for mask in edits.values()) == width * sum(sum(layer) for layer in gone)


def test_a_larger_ratio_removes_those_of_a_smaller_one_too(testbed: Testbed) -> None:
    few, many = copy_of(testbed), copy_of(testbed)
    RandomNeurons(ratio=0.05).apply(few, Context())
    RandomNeurons(ratio=0.2).apply(many, Context())
    both = torch.tensor(removed(few)) & torch.tensor(removed(many))
    assert both.tolist() == removed(few)


def test_every_neuron_is_as_likely(testbed: Testbed) -> None:
    scores = torch.stack([RandomNeurons().attribute(testbed, Context(seed=seed)) for seed in range(400)])
    assert float((scores.mean(0) - 0.5).abs().max()) < 0.1


def test_it_is_shown_nothing_and_needs_nothing(testbed: Testbed) -> None:
    view = dataclasses.replace(testbed, retain=None, extra=None).shown_to("random_neurons", RandomNeurons.needs)
    assert RandomNeurons().supports(testbed) is None
    RandomNeurons(ratio=0.1).apply(view, Context())
    assert any(any(layer) for layer in removed(testbed))


def test_an_empty_forget_set_is_no_reason_to_skip_it(testbed: Testbed) -> None:
    nothing: Sequences = testbed.forget.select([])
    empty = dataclasses.replace(testbed, forget=nothing)
    assert RandomNeurons().supports(empty) is None
    assert ZeroOut().supports(empty) == "it needs the forget set, and this testbed has none"


@pytest.mark.parametrize(
    ("method", "settings", "rows"),
    [
        (ZeroOut, {}, 16),  # the exact estimator takes a pass for each neuron and row
        (ZeroOut, {"estimator": "taylor"}, 48),
        (Activations, {}, 48),
        (IntegratedGradients, {}, 48),
    ],
)
def test_it_is_beaten(planted: Testbed, method: type[NeuronUnlearning], settings: dict[str, str], rows: int) -> None:
    """The neurons found for memorized rows differ from those for regular rows, and matter more than random ones."""
    harm = Harm(planted, ratio=0.2)
    found = harm.of(method, **settings)
    elsewhere = harm.of(method, shown=planted.retain.select(slice(rows)), **settings)
    draws = [harm.of(RandomNeurons, seed=seed).forget_loss for seed in range(3)]
    assert overlap(found.removed, elsewhere.removed) < 0.6
    assert found.forget_loss > 3 * sum(draws) / len(draws)
    assert found.forget_loss > 1.2 * elsewhere.forget_loss
