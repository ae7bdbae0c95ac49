"""Blocks that are recomputed in the backward pass: the same gradients, less memory, nothing left behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from unmemorize import Testbed
from unmemorize.contracts.layout import MLP
from unmemorize.editing.checkpointing import checkpointed_blocks
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize.testing.models import known_mlps
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning.gates import gated_activations


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest, registry: Registry) -> Testbed:
    model = tiny_model(request.param)
    return tiny_testbed(model, known_mlps(model, registry))


@contextmanager
def counted_runs(mlps: tuple[MLP, ...]) -> Iterator[list[int]]:
    """How often each MLP ran."""
    runs = [0] * len(mlps)

    def count(index: int) -> object:
        def hook(*_: object) -> None:
            runs[index] += 1

        return mlps[index].up.module.register_forward_hook(hook)

    handles = [count(index) for index in range(len(mlps))]
    yield runs
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]


def gradients(testbed: Testbed) -> dict[str, Tensor]:
    sequence_losses(testbed.model, testbed.forget).sum().backward()
    found = {name: parameter.grad for name, parameter in testbed.model.named_parameters()}
    testbed.model.zero_grad(set_to_none=True)
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def test_gradients_are_exactly_the_same_in_eval_mode(testbed: Testbed) -> None:
    expected = gradients(testbed)
    with checkpointed_blocks(testbed.mlps), counted_runs(testbed.mlps) as runs:
        found = gradients(testbed)
    assert runs == [2] * len(testbed.mlps)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_dropout_draws_the_same_in_both_passes(registry: Registry) -> None:
    model = tiny_model("gpt2")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    testbed = tiny_testbed(model, known_mlps(model, registry))
    model.train()
    torch.manual_seed(0)
    expected = gradients(testbed)
    torch.manual_seed(0)
    with checkpointed_blocks(testbed.mlps):
        found = gradients(testbed)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_hooks_inside_a_block_are_run_again_with_it(testbed: Testbed) -> None:
    def pull() -> Tensor:
        gates = torch.full((len(testbed.mlps), testbed.mlps[0].neurons), 0.5, requires_grad=True)
        with gated_activations(testbed.mlps, gates):
            sequence_losses(testbed.model, testbed.forget).sum().backward()
        assert gates.grad is not None
        return gates.grad

    expected = pull()
    with checkpointed_blocks(testbed.mlps):
        assert torch.allclose(pull(), expected, rtol=1e-5, atol=1e-7)


def test_passes_without_gradients_and_with_a_cache_run_once(testbed: Testbed) -> None:
    ids = testbed.forget.inputs()[:, :6]
    with torch.no_grad():
        expected = testbed.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=2)
    with checkpointed_blocks(testbed.mlps), counted_runs(testbed.mlps) as runs:
        with torch.no_grad():
            sequence_losses(testbed.model, testbed.forget)
        assert runs == [1] * len(testbed.mlps)
        found = testbed.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=2)
    assert torch.equal(found, expected)


def test_a_copy_made_inside_runs_its_own_blocks(testbed: Testbed) -> None:
    with checkpointed_blocks(testbed.mlps):
        twin = copy.deepcopy(testbed.model)
        before = sequence_losses(twin, testbed.forget)
        for mlp in testbed.mlps:
            mlp.down.weight.data.zero_()
        assert torch.equal(sequence_losses(twin, testbed.forget), before)
        assert not torch.equal(sequence_losses(testbed.model, testbed.forget), before)


def test_nothing_is_left_behind_also_after_a_failure(testbed: Testbed) -> None:
    own = testbed.mlps[0].block.forward
    testbed.mlps[1].block.forward = own  # as another library's patch would stand there
    before = [dict(mlp.block.__dict__) for mlp in testbed.mlps]
    with pytest.raises(RuntimeError, match="in the middle"), checkpointed_blocks(testbed.mlps):
        raise RuntimeError("in the middle")
    assert [dict(mlp.block.__dict__) for mlp in testbed.mlps] == before
