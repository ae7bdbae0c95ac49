"""`integrated_gradients` equals its definition: a full pass over the prefix for every position, layer and point."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from naive import activations_at, down_module, rows_of, takes_top
from neurons import close, correlation, removed
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import Context, Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_sequences, tiny_testbed
from unmemorize.testing.models import known_mlps
from unmemorize_plugins.methods.unlearning.neuron.integrated_gradients import IntegratedGradients

STEPS = 4


@pytest.fixture
def testbed(testbed: Testbed) -> Testbed:
    """Four rows are enough to forget: the definition takes one pass per position, layer and point."""
    return dataclasses.replace(testbed, forget=tiny_sequences(4, seed=1, shortest=6, longest=9))


def by_definition(testbed: Testbed, steps: int = STEPS) -> Tensor:
    """The mean over positions i of a * 1/S * sum over k of d p(x_{i+1}) / d(last activation) at k / S * a."""
    sums = torch.zeros(2, testbed.mlps[0].neurons)
    positions = 0
    for row, start in rows_of(testbed.forget):
        for position in range(start - 1, len(row) - 1):
            positions += 1
            for layer in range(2):
                prefix = row[: position + 1]
                last = activations_at(testbed, layer, prefix)[-1]
                for k in range(1, steps + 1):
                    gradient = pull(testbed, layer, prefix, row[position + 1], k / steps * last)
                    sums[layer] += last * gradient / steps
    return sums / positions


def pull(testbed: Testbed, layer: int, prefix: list[int], target: int, value: Tensor) -> Tensor:
    """d p(target | prefix) / d value, where `value` is put in place of the last position's activations."""
    value = value.detach().clone().requires_grad_()

    def put(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.cat([inputs[0][:, :-1], value[None, None]], dim=1),)

    handle = down_module(testbed, layer).register_forward_pre_hook(put)
    probability = testbed.model(input_ids=torch.tensor([prefix])).logits[0, -1].softmax(-1)[target]
    handle.remove()
    return torch.autograd.grad(probability, value)[0]


def test_attribution_is_its_definition(testbed: Testbed) -> None:
    scores = IntegratedGradients(steps=STEPS, batch_size=3).attribute(testbed, Context())
    assert close(scores, by_definition(testbed))
    assert (scores < 0).any()  # the sign is kept


def test_only_one_token_of_the_layers_above_is_rerun(testbed: Testbed) -> None:
    passed: list[list[torch.Size]] = [[], []]
    handles = [
        mlp.up.module.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0].shape))
        for mlp, kept in zip(testbed.mlps, passed, strict=True)
    ]
    IntegratedGradients(steps=STEPS).attribute(testbed, Context())
    for handle in handles:
        handle.remove()
    assert len(passed[0]) == 4  # the probe, a test for each layer, and the recording
    reruns = passed[1][4:]
    assert len(reruns) == int(testbed.forget.predicting().any(dim=0).sum())
    assert {shape[1] for shape in reruns} == {1}
    assert sum(shape[0] for shape in reruns) == STEPS * int(testbed.forget.predicting().sum())


def test_steps_are_used(testbed: Testbed) -> None:
    one = IntegratedGradients(steps=1).attribute(testbed, Context())
    assert close(one, by_definition(testbed, 1))
    assert not close(one, by_definition(testbed), within=0.02)


def test_many_steps_complete_the_difference(testbed: Testbed) -> None:
    """Completeness (Sundararajan et al. 2017): attributions of a layer add up to p(a) - p(0)."""
    scores = IntegratedGradients(steps=200).attribute(testbed, Context())
    gains = []
    for row, start in rows_of(testbed.forget):
        for position in range(start - 1, len(row) - 1):
            prefix, target = row[: position + 1], row[position + 1]
            gains.append(probability(testbed, prefix, target) - probability(testbed, prefix, target, without=0))
    assert float(scores.view(2, -1)[0].sum()) == pytest.approx(sum(gains) / len(gains), rel=0.03, abs=1e-4)


@torch.no_grad()
def probability(testbed: Testbed, prefix: list[int], target: int, without: int | None = None) -> float:
    def silence(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.cat([inputs[0][:, :-1], torch.zeros_like(inputs[0][:, -1:])], dim=1),)

    handle = down_module(testbed, without or 0).register_forward_pre_hook(
        silence if without is not None else lambda *_: None
    )
    logits = testbed.model(input_ids=torch.tensor([prefix])).logits[0, -1]
    handle.remove()
    return float(logits.softmax(-1)[target])


@pytest.mark.parametrize("window", [4096, 3])
def test_a_block_that_normalizes_what_its_mlp_writes(registry: Registry, window: int) -> None:
    """Gemma 2; and where its window is shorter than a row, its cache forgets what reruns need."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma2", vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=4, intermediate_size=24, max_position_embeddings=64, initializer_range=0.3, pad_token_id=2,
        sliding_window=window,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    testbed = tiny_testbed(model, known_mlps(model, registry))
    testbed.forget = tiny_sequences(3, seed=1, shortest=6, longest=8)
    scores = IntegratedGradients(steps=STEPS).attribute(testbed, Context())
    assert close(scores, by_definition(testbed))


def test_a_suffix_that_starts_at_the_second_token_has_no_past(testbed: Testbed) -> None:
    forget = dataclasses.replace(testbed.forget, suffix_starts=torch.ones_like(testbed.forget.suffix_starts))
    early = dataclasses.replace(testbed, forget=forget.select([0, 1]))
    scores = IntegratedGradients(steps=STEPS).attribute(early, Context())
    assert close(scores, by_definition(early))


def test_the_neurons_with_the_highest_attribution_are_removed(testbed: Testbed) -> None:
    expected = by_definition(testbed)
    IntegratedGradients(ratio=0.1, steps=STEPS).apply(testbed, Context())
    gone = torch.tensor(removed(testbed))
    assert all(takes_top(mask, row, 0.1) for mask, row in zip(gone, expected, strict=True))


def test_a_few_positions_of_a_few_sequences_cost_less_and_are_flagged(testbed: Testbed) -> None:
    context = Context()
    method = IntegratedGradients(steps=2, positions=2, samples=3)
    few = method.attribute(testbed, context)
    assert context.report.flags == {"approximate-attribution"}
    whole = Context()
    every = IntegratedGradients(steps=2).attribute(testbed, whole)
    assert not whole.report.flags
    assert correlation(few, every) > 0.3
    assert (
        method.sample(testbed.forget, Context()).ids.tolist() == method.sample(testbed.forget, Context()).ids.tolist()
    )


@pytest.mark.parametrize("positions", [1, 2, 3, 5, 100])
def test_chosen_positions_are_evenly_spaced_over_the_suffix(testbed: Testbed, positions: int) -> None:
    chosen = IntegratedGradients(positions=positions).chosen(testbed.forget)
    predicting = testbed.forget.predicting()
    assert not (chosen & ~predicting).any()
    for row, of in zip(chosen, predicting, strict=True):
        places, possible = row.nonzero().flatten().tolist(), of.nonzero().flatten().tolist()
        assert len(places) == min(positions, len(possible))
        assert places[0] == possible[0]
        gaps = [b - a for a, b in zip(places, [*places[1:], possible[-1] + 1], strict=True)]
        assert max(gaps) - min(gaps) <= 1


def test_as_many_positions_as_there_are_is_the_definition(testbed: Testbed) -> None:
    every = IntegratedGradients(steps=STEPS).attribute(testbed, Context())
    assert close(IntegratedGradients(steps=STEPS, positions=100, samples=100).attribute(testbed, Context()), every)
