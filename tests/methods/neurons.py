"""What the tests of neuron-level methods share: what must hold for each of them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from naive import down_module, outgoing, row_loss, rows_of
from torch import Tensor

from unmemorize import Context, NeuronUnlearning, Sequences, Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps


def close(scores: Tensor, expected: Tensor, within: float = 1e-3) -> bool:
    """Whether no score is further off than a share of the largest."""
    scores, expected = scores.flatten(), expected.flatten()
    return float((scores - expected).abs().max()) <= within * float(expected.abs().max())


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


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


@contextmanager
def left_untouched(testbed: Testbed) -> Iterator[None]:
    """The model ends with the same weights, flags and outputs, and without hooks, patches or gradients."""
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    logits = testbed.model(input_ids=testbed.forget.inputs()).logits
    try:
        yield
    finally:
        after = testbed.model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(p.grad is None and p.requires_grad for p in testbed.model.parameters())
        for module in testbed.model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert "forward" not in module.__dict__
        assert torch.equal(testbed.model(input_ids=testbed.forget.inputs()).logits, logits)


def removed(testbed: Testbed) -> list[list[bool]]:
    """Which neurons have no outgoing weights left, layer by layer."""
    neurons = range(testbed.mlps[0].neurons)
    return [[bool((outgoing(testbed, layer, n) == 0).all()) for n in neurons] for layer in range(len(testbed.mlps))]


def overlap(one: list[list[bool]], other: list[list[bool]]) -> float:
    """Neurons that are in both selections, as a share of those in either."""
    first, second = torch.tensor(one), torch.tensor(other)
    return float((first & second).sum() / (first | second).sum())


class Harm:
    """What removing neurons does to a planted testbed, measured on copies of it."""

    def __init__(self, planted: Testbed, ratio: float) -> None:
        self.planted, self.ratio = planted, ratio

    def of(
        self,
        method: type[NeuronUnlearning],
        *,
        shown: Sequences | None = None,
        seed: int = 0,
        **settings: object,
    ) -> Harmed:
        """Remove what `method` finds when it is shown the memorized rows, or others."""
        testbed = copy_of(self.planted)
        view = dataclasses.replace(testbed, forget=testbed.forget if shown is None else shown)
        method(ratio=self.ratio, **settings).apply(view, Context(seed=seed))
        return Harmed(removed(testbed), suffix_loss(testbed, testbed.forget), suffix_loss(testbed, testbed.retain))


@dataclasses.dataclass
class Harmed:
    removed: list[list[bool]]
    forget_loss: float
    retain_loss: float


def copy_of(testbed: Testbed) -> Testbed:
    model = copy.deepcopy(testbed.model)
    return dataclasses.replace(testbed, model=model, mlps=known_mlps(model, Registry.load("none")))


@torch.no_grad()
def suffix_loss(testbed: Testbed, sequences: Sequences) -> float:
    losses = [row_loss(testbed.model, row, start) for row, start in rows_of(sequences)]
    return float(torch.stack(losses).mean())


def extracted(testbed: Testbed) -> int:
    """How many rows of the forget set greedy decoding regurgitates."""
    return sum(extractable(testbed, row, start) for row, start in rows_of(testbed.forget))


@torch.no_grad()
def extractable(testbed: Testbed, row: list[int], start: int) -> bool:
    said = row[:start]
    while len(said) < len(row):
        said.append(int(testbed.model(input_ids=torch.tensor([said])).logits[0, -1].argmax()))
    return said == row
