"""Every weight-level method knows where memorization is: chance, with the same number of weights, does far less."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from naive import row_loss, rows_of

from unmemorize import Context, Method, Testbed
from unmemorize.execution.reference import Reference
from unmemorize.toolkit import matrices_of
from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet
from unmemorize_plugins.methods.unlearning.weight.durable import Durable
from unmemorize_plugins.methods.unlearning.weight.durable_aggregate import DurableAggregate
from unmemorize_plugins.methods.unlearning.weight.greedy import Greedy
from unmemorize_plugins.methods.unlearning.weight.random_weights import RandomWeights
from unmemorize_plugins.methods.unlearning.weight.second_order import SecondOrder
from unmemorize_plugins.methods.unlearning.weight.subnet import Subnet


class State(NamedTuple):
    """What a model still regurgitates."""

    extraction: float
    forget_loss: float
    retain_loss: float


@torch.no_grad()
def state(testbed: Testbed) -> State:
    extractable = []
    for row, start in rows_of(testbed.forget):
        said = testbed.model(input_ids=torch.tensor([row])).logits[0].argmax(-1)
        extractable.append(said[start - 1 : -1].tolist() == row[start:])
    losses = [
        torch.stack([row_loss(testbed.model, row) for row, _ in rows_of(rows)]).mean().item()
        for rows in (testbed.forget, testbed.retain)
    ]
    return State(100 * sum(extractable) / len(extractable), *losses)


def after(testbed: Testbed, method: Method, seed: int) -> tuple[State, int]:
    """The state once a method has acted, and the number of weights that it removed; the model is restored."""
    reference, context = Reference(testbed.model), Context(seed=seed)
    method.apply(testbed, context)
    reached = state(testbed)
    reference.restore()
    return reached, context.report.notes["selected_weights"]


def mean(states: list[State]) -> State:
    return State(*(sum(values) / len(values) for values in zip(*states, strict=True)))


# `durable` looks at the size of a gradient and not at its sign: of the six it knows least, and it needs a large share.
METHODS = [
    Greedy(ratio=0.01),
    Durable(ratio=0.25, tokens="suffix"),
    DurableAggregate(ratio=0.2),
    SecondOrder(ratio=0.1),
    Subnet(ratio=0.05, epochs=20, learning_rate=1.0),
    BalancedSubnet(ratio=0.1, epochs=15, learning_rate=1.0),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_it_does_more_than_chance_with_as_many_weights(planted: Testbed, method: Method) -> None:
    before = state(planted)
    assert before.extraction == 100
    units = sum(matrix.weight.numel() for matrix in matrices_of(planted.mlps).values())
    own, chance = [], []
    for seed in range(2):
        reached, removed = after(planted, method, seed)
        own.append(reached)
        blind = RandomWeights(ratio=removed / units)
        chance += [after(planted, blind, other)[0] for other in (seed, seed + 10)]
    own_mean, chance_mean = mean(own), mean(chance)
    assert own_mean.extraction < chance_mean.extraction - 10
    assert own_mean.forget_loss - before.forget_loss > 1.4 * (chance_mean.forget_loss - before.forget_loss)
