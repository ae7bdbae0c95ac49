"""`kfac` equals its definition: factors from one gradient per token, components sorted in a list."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import Context, DivergedError, Matrix, Testbed, UnmemorizeError
from unmemorize.testing import ARCHITECTURES, memorizing_testbed, tiny_testbed
from unmemorize.toolkit import matrices_of
from unmemorize_kfac import KFAC, Basis, Eigen, drawn, without_flat


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest) -> Testbed:
    return memorizing_testbed(request.param)


def slow_factors(testbed: Testbed, matrix: Matrix) -> tuple[Tensor, Tensor]:
    """Sums of a a^T and g g^T, with g the gradient with respect to something added to what the matrix gives."""
    assert testbed.retain is not None
    size_in, size_out = matrix.by_input().shape
    inputs, outputs = torch.zeros(size_in, size_in), torch.zeros(size_out, size_out)
    for row, length in zip(testbed.retain.tokens.tolist(), testbed.retain.lengths.tolist(), strict=True):
        added = torch.zeros(1, length, size_out, requires_grad=True)
        seen: list[Tensor] = []

        def add(_: object, given: tuple[Tensor, ...], output: Tensor, added=added, seen=seen) -> Tensor:  # type: ignore[no-untyped-def]
            seen.append(given[0][0].detach())
            return output + added

        handle = matrix.module.register_forward_hook(add)
        logits = testbed.model(input_ids=torch.tensor([row[:length]])).logits[0]
        handle.remove()
        loss = sum(-logits[t - 1].log_softmax(-1)[row[t]] for t in range(1, length))
        (gradient,) = torch.autograd.grad(loss, added)
        for t in range(length - 1):
            inputs += torch.outer(seen[0][t], seen[0][t])
            outputs += torch.outer(gradient[0, t], gradient[0, t])
    return inputs, outputs


def slow_edit(weights: np.ndarray, A: np.ndarray, G: np.ndarray, energy: float) -> tuple[np.ndarray, int]:
    """The edited (outputs, inputs) matrix, component by component, and how many were kept."""
    lam, V = np.linalg.eigh(A)
    mu, U = np.linalg.eigh(G)
    lam, mu = lam.clip(0), mu.clip(0)
    order = sorted(((mu[i] * lam[j], i, j) for i in range(len(mu)) for j in range(len(lam))), reverse=True)
    total = math.fsum(mass for mass, _, _ in order)
    result, held, count = np.zeros_like(weights), 0.0, 0
    for mass, i, j in order:
        if held >= energy * total:
            break
        held, count = held + mass, count + 1
        result += (U[:, i] @ weights @ V[:, j]) * np.outer(U[:, i], V[:, j])
    return result, count


def changed(testbed: Testbed, method: KFAC) -> set[str]:
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    method.apply(testbed, Context())
    return {name for name, value in testbed.model.state_dict().items() if not torch.equal(value, before[name])}


def hooks_of(testbed: Testbed) -> int:
    return sum(len(module._forward_hooks) + len(module._backward_hooks) for module in testbed.model.modules())


def test_factors_are_sums_over_tokens(testbed: Testbed) -> None:
    testbed.retain = testbed.retain.select(slice(0, 5))
    group = list(matrices_of(testbed.mlps).values())
    found = KFAC(labels="true", batch_size=2).factors(testbed, group, Context())
    for matrix in group:
        inputs, outputs = slow_factors(testbed, matrix)
        torch.testing.assert_close(found[matrix.name].inputs, inputs, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[matrix.name].outputs, outputs, rtol=1e-3, atol=1e-5)
    assert hooks_of(testbed) == 0
    assert all(p.requires_grad and p.grad is None for p in testbed.model.parameters())


def test_padding_and_batches_do_not_count(testbed: Testbed) -> None:
    lengths = testbed.retain.lengths.clone()
    lengths[::3] -= 6
    testbed.retain.lengths[:] = lengths
    group = list(matrices_of(testbed.mlps).values())
    for labels in ("true", "sampled"):
        results = [KFAC(labels=labels, batch_size=size).factors(testbed, group, Context()) for size in (1, 5, 64)]
        for name in results[0]:
            for other in results[1:]:
                torch.testing.assert_close(results[0][name].inputs, other[name].inputs, rtol=1e-3, atol=1e-3)
                torch.testing.assert_close(results[0][name].outputs, other[name].outputs, rtol=1e-3, atol=1e-5)


def test_labels_are_drawn_from_the_models_own_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    found = drawn(logits.expand(20_000, 4), torch.Generator().manual_seed(0))
    shares = torch.bincount(found, minlength=4) / 20_000
    assert (shares - logits[0].softmax(-1)).abs().max() < 0.015
    assert shares[2] == 0
    sure = torch.full((50, 9), -50.0).scatter(1, torch.arange(50)[:, None] % 9, 50.0)
    assert drawn(sure, torch.Generator().manual_seed(1)).tolist() == [i % 9 for i in range(50)]


@pytest.mark.parametrize("energy", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("stores_input_first", [True, False])
def test_the_edit_keeps_the_sharpest_components(energy: float, stores_input_first: bool) -> None:
    generator = np.random.default_rng(0)
    A, G = (x @ x.T for x in (generator.normal(size=(7, 9)), generator.normal(size=(5, 8))))
    weights = generator.normal(size=(5, 7))
    module = torch.nn.Linear(1, 1, bias=False)
    stored = weights.T if stores_input_first else weights
    module.weight = torch.nn.Parameter(torch.tensor(stored.copy(), dtype=torch.float32))
    matrix = Matrix("w", module, stores_input_first)
    basis = Basis(*(Eigen(*torch.linalg.eigh(torch.tensor(x, dtype=torch.float32))) for x in (A, G)))
    expected, count = slow_edit(weights, A, G, energy)
    found = without_flat(matrix, basis, energy)
    assert found.kept == count
    torch.testing.assert_close(found.weights.T, torch.tensor(expected, dtype=torch.float32), rtol=1e-3, atol=1e-4)


def test_the_whole_method_is_its_definition(testbed: Testbed) -> None:
    testbed.retain = testbed.retain.select(slice(0, 8))
    matrix = testbed.mlps[1].up
    A, G = (factor.double().numpy() for factor in slow_factors(testbed, matrix))
    weights = matrix.by_input().T.detach().double().numpy()
    expected, count = slow_edit(weights, A, G, 0.9)
    context = Context()
    KFAC(labels="true", layers=[1], matrices=["up"], energy=0.9).apply(testbed, context)
    assert abs(context.report.notes["components_kept"] - count) <= 1  # float32 sums may end one component apart
    found = matrix.by_input().T.detach().double().numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(weights).max()


def test_it_is_shown_no_forget_set_and_changes_what_it_says(testbed: Testbed) -> None:
    view = testbed.shown_to("kfac", KFAC.needs)
    gated = testbed.mlps[0].gate is not None
    names = changed(view, KFAC())
    expected = [testbed.mlps[1].gate, testbed.mlps[1].up] if gated else [testbed.mlps[1].up]
    assert names == {matrix.name for matrix in expected if matrix is not None}


@pytest.mark.parametrize(("depth", "expected"), [(1, {0}), (2, {1}), (3, {2}), (12, {9}), (32, {23, 24, 25})])
def test_the_usual_layers_are_those_of_the_paper(depth: int, expected: set[int]) -> None:
    testbed = memorizing_testbed()
    testbed.mlps = tuple(dataclasses.replace(testbed.mlps[0], layer=layer) for layer in range(depth))
    testbed.mlps = tuple(
        dataclasses.replace(mlp, up=dataclasses.replace(mlp.up, name=str(mlp.layer))) for mlp in testbed.mlps
    )
    assert {int(matrix.name) for matrix in KFAC().matrices(testbed)} == expected


def test_layers_with_experts_are_refused_and_others_edited() -> None:
    config = AutoConfig.for_model(
        "qwen3_moe", vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2, mlp_only_layers=[0],
    )  # fmt: skip
    testbed = tiny_testbed(AutoModelForCausalLM.from_config(config).eval())
    assert str(KFAC().supports(testbed)).endswith("set layers out of [0]")
    assert changed(testbed, KFAC(layers=[0])) == {matrix.name for matrix in testbed.mlps[0].matrices[:2]}


def test_layers_and_matrices_are_chosen(testbed: Testbed) -> None:
    assert changed(testbed, KFAC(layers=[0], matrices=["down"])) == {testbed.mlps[0].down.name}
    assert changed(testbed, KFAC(layers=[-1, 1], matrices=["up"])) == {testbed.mlps[1].up.name}
    assert "layers [2, -3]" in str(KFAC(layers=[2, 0, -3]).supports(testbed))
    answer = KFAC(matrices=["gate"]).supports(testbed)
    assert (answer is None) == (testbed.mlps[0].gate is not None)
    testbed.mlps = ()
    assert "no layout" in str(KFAC().supports(testbed))


def test_more_energy_keeps_more(testbed: Testbed) -> None:
    kept = []
    for energy in (0.5, 0.9, 0.999):
        context = Context()
        KFAC(energy=energy).apply(testbed, context)
        kept.append(context.report.notes["components_kept"])
    assert kept == sorted(set(kept))


def test_little_memory_means_more_passes_and_the_same_result(testbed: Testbed) -> None:
    again = memorizing_testbed(testbed.model.config.model_type)
    settings = {"layers": [0], "matrices": ["up", "down"]}
    KFAC(**settings).apply(testbed, Context())
    tight = KFAC(**settings, memory=1e-9)
    assert len(tight.groups(tight.matrices(again))) == 2
    tight.apply(again, Context())
    for one, other in zip(testbed.mlps[0].matrices, again.mlps[0].matrices, strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_cells_that_differ_in_energy_share_the_curvature(testbed: Testbed) -> None:
    shared = Context().shared_work
    passes: list[int] = []
    handle = testbed.model.register_forward_hook(lambda *_: passes.append(1))
    for energy in (0.9, 0.5):
        context = Context(shared_work=shared)
        KFAC(energy=energy).apply(testbed, context)
        assert context.report.seconds["attribute"] > 0
    handle.remove()
    assert len(passes) == -(-len(testbed.retain) // 8)


def test_only_so_many_sequences_are_read(testbed: Testbed) -> None:
    passes: list[int] = []
    handle = testbed.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    KFAC(sequences=5, batch_size=2).apply(testbed, Context())
    handle.remove()
    assert passes == [2, 2, 1]


def test_nothing_is_left_behind_when_time_runs_out(testbed: Testbed) -> None:
    with pytest.raises(UnmemorizeError, match="deadline"):
        KFAC(batch_size=1).apply(testbed, Context(deadline=1e-9))
    assert hooks_of(testbed) == 0


def test_a_model_that_says_nothing_finite_is_reported(testbed: Testbed) -> None:
    with torch.no_grad():
        testbed.mlps[0].up.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="kfac"):
        KFAC().apply(testbed, Context())


def test_its_cost_names_passes_and_factors(testbed: Testbed) -> None:
    method = KFAC(layers=[0], matrices=["up", "down"])
    given: list[int] = []
    handle = testbed.model.register_forward_pre_hook(
        lambda _, arguments, named: given.append(named["input_ids"].numel()), with_kwargs=True
    )
    method.apply(testbed, Context())
    handle.remove()
    cost = method.cost(testbed)
    assert cost.backward_tokens == sum(given)
    assert cost.device_bytes >= 2 * 4 * 2 * (32**2 + testbed.mlps[0].neurons ** 2)
    assert KFAC(layers=[0], matrices=["up", "down"], memory=1e-9).cost(testbed).backward_tokens == 2 * sum(given)


def test_settings_are_checked() -> None:
    for wrong in ({"energy": 1.0}, {"energy": 0}, {"matrices": ["value"]}, {"labels": "none"}):
        with pytest.raises(ValidationError):
            KFAC(**wrong)
