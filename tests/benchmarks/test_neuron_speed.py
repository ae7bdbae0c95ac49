"""How fast neurons are chosen: each method beside the same result computed naively, as the released code does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config

from unmemorize import Context, GateUnlearning, Sequences, Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import gate_gradients, neuron_activations
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning.gates import gated_activations
from unmemorize_plugins.methods.unlearning.neuron.activations import Activations
from unmemorize_plugins.methods.unlearning.neuron.hard_concrete import HardConcrete
from unmemorize_plugins.methods.unlearning.neuron.integrated_gradients import IntegratedGradients
from unmemorize_plugins.methods.unlearning.neuron.slimming import Slimming
from unmemorize_plugins.methods.unlearning.neuron.zero_out import ZeroOut

ROWS, LENGTH, WIDTH, LAYERS, STEPS = 4, 24, 32, 2, 20


@pytest.fixture
def small(registry: Registry) -> Testbed:
    """A GPT-2 of 2 layers with 128 neurons each, and 4 random rows of 24 tokens."""
    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=WIDTH, n_layer=LAYERS, n_head=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    rows = torch.randint(0, 40, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    return Testbed("small", model, forget=Sequences.from_rows(rows, prompt=12), mlps=known_mlps(model, registry))


@torch.no_grad()
def remove_in_a_loop(testbed: Testbed) -> Tensor:
    """One pass over the whole model for every neuron."""

    def loss() -> Tensor:
        return sequence_losses(testbed.model, testbed.forget, tokens="suffix").mean()

    before = loss()
    rises = torch.zeros(LAYERS, testbed.mlps[0].neurons)
    for layer, mlp in enumerate(testbed.mlps):
        for neuron, outgoing in enumerate(mlp.down.by_input()):
            kept = outgoing.clone()
            outgoing.zero_()
            rises[layer, neuron] = loss() - before
            outgoing.copy_(kept)
    return rises


@pytest.mark.benchmark(group="zero_out: 256 neurons, 4 rows of 24 tokens")
@pytest.mark.parametrize("way", ["upper layers, many at a time", "taylor (approximate)", "one pass for each"])
def test_zero_out(benchmark: BenchmarkFixture, small: Testbed, way: str) -> None:
    ways: dict[str, Callable[[], Tensor]] = {
        "upper layers, many at a time": lambda: ZeroOut().attribute(small, Context()),
        "taylor (approximate)": lambda: ZeroOut(estimator="taylor").attribute(small, Context()),
        "one pass for each": lambda: remove_in_a_loop(small),
    }
    scores = benchmark.pedantic(ways[way], rounds=3)
    assert torch.allclose(scores.flatten(), remove_in_a_loop(small).flatten(), atol=1e-6) or "approximate" in way


def integrate_prefix_by_prefix(testbed: Testbed) -> Tensor:
    """One pass over the whole prefix for every row, position, layer and point."""
    sums = torch.zeros(LAYERS, testbed.mlps[0].neurons)
    for row in testbed.forget.tokens:
        for position in range(11, LENGTH - 1):
            prefix, target = row[None, : position + 1], int(row[position + 1])
            for layer in range(LAYERS):
                clean = last_activations(testbed, layer, prefix)
                for k in range(1, STEPS + 1):
                    sums[layer] += clean * pull(testbed, layer, prefix, target, k / STEPS * clean) / STEPS
    return sums / (len(testbed.forget) * (LENGTH - 12))


@torch.no_grad()
def last_activations(testbed: Testbed, layer: int, prefix: Tensor) -> Tensor:
    seen: list[Tensor] = []
    with neuron_activations([testbed.mlps[layer]], lambda _, activations: seen.append(activations[0, -1])):
        testbed.model(input_ids=prefix, use_cache=False)
    return seen[0]


def pull(testbed: Testbed, layer: int, prefix: Tensor, target: int, value: Tensor) -> Tensor:
    leaf = value.detach().requires_grad_()

    def put(_: int, activations: Tensor) -> Tensor:
        return torch.cat([activations[:, :-1], leaf[None, None]], dim=1)

    with neuron_activations([testbed.mlps[layer]], put):
        logits = testbed.model(input_ids=prefix, use_cache=False).logits[0, -1]
    return torch.autograd.grad(logits.softmax(-1)[target], leaf)[0]


@pytest.mark.benchmark(group="integrated_gradients: 1 row, 12 positions, 2 layers, 20 points")
@pytest.mark.parametrize("way", ["keys and values kept", "whole prefixes"])
def test_integrated_gradients(benchmark: BenchmarkFixture, small: Testbed, way: str) -> None:
    small.forget = small.forget.select([0])
    ways: dict[str, Callable[[], Tensor]] = {
        "keys and values kept": lambda: IntegratedGradients().attribute(small, Context()),
        "whole prefixes": lambda: integrate_prefix_by_prefix(small),
    }
    scores = benchmark.pedantic(ways[way], rounds=3 if way == "keys and values kept" else 1)
    assert torch.allclose(scores.flatten(), IntegratedGradients().attribute(small, Context()), rtol=1e-2, atol=1e-7)


@pytest.mark.benchmark(group="activations: 4 rows")
@pytest.mark.parametrize("way", ["running sums", "row by row, all kept"])
def test_activations(benchmark: BenchmarkFixture, small: Testbed, way: str) -> None:
    norms = torch.stack([mlp.down.by_input().detach().norm(dim=1) for mlp in small.mlps])

    @torch.no_grad()
    def all_kept() -> Tensor:
        kept: list[list[Tensor]] = [[] for _ in range(LAYERS)]
        for row in small.forget.tokens:
            with neuron_activations(small.mlps, lambda layer, a: kept[layer].append(a[0, 11:-1])):
                small.model(input_ids=row[None], use_cache=False)
        return torch.stack([torch.cat(rows).abs().mean(dim=0) for rows in kept]) * norms

    ways: dict[str, Callable[[], Tensor]] = {
        "running sums": lambda: Activations().attribute(small, Context()),
        "row by row, all kept": all_kept,
    }
    assert torch.allclose(benchmark(ways[way]).flatten(), all_kept().flatten(), rtol=1e-3)


def learn_row_by_row(method: GateUnlearning, testbed: Testbed) -> Tensor:
    """Take the steps of the same optimization, one row at a time."""
    context = Context()
    generator = context.generator(method.name)
    strength = float(gate_gradients(testbed, testbed.forget, context, method.config).abs().sum())
    parameter = method.initial(LAYERS * testbed.mlps[0].neurons).requires_grad_()
    adam = torch.optim.Adam([parameter], lr=method.config.learning_rate)
    for _ in range(method.config.max_steps):
        adam.zero_grad()
        torch.randperm(ROWS, generator=generator)  # the order of the rows
        gates = method.gates(parameter, generator)
        for number in range(len(testbed.forget)):
            with gated_activations(testbed.mlps, gates):
                loss = sequence_losses(testbed.model, testbed.forget.select([number]), tokens="suffix").sum()
            (loss / ROWS).backward(retain_graph=True)
        (strength * method.openness(parameter).mean()).backward()
        adam.step()
        with torch.no_grad():
            method.project(parameter)
        strength *= method.config.growth
    testbed.model.zero_grad(set_to_none=True)
    return method.openness(parameter).detach()


@pytest.mark.parametrize("way", ["batched, weights without gradients", "row by row"])
@pytest.mark.parametrize("kind", [Slimming, HardConcrete])
def test_gates(benchmark: BenchmarkFixture, small: Testbed, kind: type[GateUnlearning], way: str) -> None:
    benchmark.group = f"{kind.name}: 10 steps over 4 rows"
    method = kind(max_steps=10)
    ways: dict[str, Callable[[], Tensor]] = {
        "batched, weights without gradients": lambda: method.attribute(small, Context()),
        "row by row": lambda: learn_row_by_row(method, small),
    }
    scores = benchmark.pedantic(ways[way], rounds=3)
    assert torch.allclose(scores.flatten(), method.attribute(small, Context()), atol=5e-3)
