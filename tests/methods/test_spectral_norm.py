"""`spectral_norm` penalizes the largest singular values that a full decomposition finds, head by head."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from unmemorize import Context, DivergedError, Layout, Testbed, TrainingRecipe, TrainingStep
from unmemorize.errors import DeadlineExceeded
from unmemorize.models.layouts import mlps_of
from unmemorize.testing import tiny_model
from unmemorize.toolkit import token_losses, train
from unmemorize_plugins.methods.regularizers.spectral_norm import SpectralNorm

HEADS, WIDTH, HEAD = 4, 16, 4


def step(testbed: Testbed, number: int = 0) -> TrainingStep:
    batch = testbed.retain
    losses = token_losses(testbed.model, batch)
    return TrainingStep(testbed.model, batch, losses.values, losses.mask, losses.row_means(), number, 0)


def by_hand(testbed: Testbed, layer: int) -> list[Tensor]:
    """Every matrix of one block, as the architecture's own forward pass cuts its parameters."""
    kind, weights = testbed.model.config.model_type, dict(testbed.model.named_parameters())
    if kind == "gpt2":
        prefix = f"transformer.h.{layer}."
        q, k, v = weights[f"{prefix}attn.c_attn.weight"].split(WIDTH, dim=1)
        heads = [part[:, HEAD * h : HEAD * (h + 1)] for part in (q, k, v) for h in range(HEADS)]
        whole = ["attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    elif kind == "gpt_neox":
        prefix = f"gpt_neox.layers.{layer}."
        fused = weights[f"{prefix}attention.query_key_value.weight"].view(HEADS, 3 * HEAD, WIDTH)
        heads = [part for head in fused for part in head.chunk(3, dim=0)]
        whole = ["attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
    else:
        prefix = f"model.layers.{layer}."
        projections = [weights[f"{prefix}self_attn.{name}_proj.weight"] for name in "qkv"]
        heads = [part for weight in projections for part in weight.split(HEAD, dim=0)]
        whole = ["self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    return heads + [weights[f"{prefix}{name}.weight"] for name in whole]


def penalty_by_svd(testbed: Testbed, power: int = 2) -> Tensor:
    top = [torch.linalg.svdvals(matrix)[0] for layer in range(2) for matrix in by_hand(testbed, layer)]
    return sum((sigma**power for sigma in top), torch.zeros(()))


def outputs_of_parts(testbed: Testbed) -> set[tuple[float, ...]]:
    return {tuple(part.detach().flatten().sort().values.tolist()) for part in by_hand(testbed, 0)}


def test_heads_are_cut_as_the_forward_pass_cuts_them(testbed: Testbed) -> None:
    parts = [part for matrix in testbed.mlps[0].block_matrices() for part in matrix.by_part()]
    assert {tuple(part.detach().flatten().sort().values.tolist()) for part in parts} == outputs_of_parts(testbed)
    assert len(parts) == len(by_hand(testbed, 0))


def test_names_are_those_of_the_state_dict(testbed: Testbed) -> None:
    weights = dict(testbed.model.named_parameters())
    for mlp in testbed.mlps:
        for matrix in mlp.block_matrices():
            assert weights[matrix.name] is matrix.weight
    two_dimensional = [p for mlp in testbed.mlps for p in mlp.block.parameters() if p.ndim == 2]
    assert len(two_dimensional) == sum(len(mlp.block_matrices()) for mlp in testbed.mlps)


@pytest.mark.parametrize("power", [1, 2])
def test_penalty_and_gradient_equal_those_of_a_full_decomposition(testbed: Testbed, power: int) -> None:
    method = SpectralNorm(strength=0.5, power=power, iterations=300)
    with method.attach(testbed.model, testbed.mlps, torch.Generator().manual_seed(0)):
        method.objective(step(testbed)).backward()
        mine = {name: p.grad.clone() for name, p in testbed.model.named_parameters() if p.grad is not None}
        value = method.objective(step(testbed)).detach()
    testbed.model.zero_grad()
    expected = step(testbed).mean_loss + 0.25 * penalty_by_svd(testbed, power)
    expected.backward()
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in testbed.model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(mine[name], parameter.grad, atol=2e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_the_vectors_go_on_from_step_to_step(testbed: Testbed) -> None:
    """One iteration per step reaches the exact value while the weights stand still."""
    method = SpectralNorm(strength=1.0)
    exact = float(penalty_by_svd(testbed).detach())
    with torch.no_grad(), method.attach(testbed.model, testbed.mlps, torch.Generator().manual_seed(3)):
        base = float(step(testbed).mean_loss)
        penalties = [2 * (float(method.objective(step(testbed, number))) - base) for number in range(60)]
    assert abs(penalties[0] - exact) > 10 * abs(penalties[-1] - exact)
    assert penalties[-1] == pytest.approx(exact, rel=2e-3)
    assert penalties[0] <= exact


def test_training_lowers_the_largest_singular_values(testbed: Testbed) -> None:
    recipe = TrainingRecipe(epochs=6, batch_size=5, learning_rate=5e-3, weight_decay=0.0)
    plain, penalized = copy.deepcopy((testbed.model, testbed.mlps)), copy.deepcopy((testbed.model, testbed.mlps))
    train(plain[0], testbed.retain, recipe, Context(), mlps=plain[1])
    report = train(
        penalized[0], testbed.retain, recipe, Context(), regularizer=SpectralNorm(strength=0.1), mlps=penalized[1]
    )
    tops = [
        torch.stack(
            [torch.linalg.svdvals(part.detach())[0] for m in mlps for x in m.block_matrices() for part in x.by_part()]
        )
        for _, mlps in (plain, penalized)
    ]
    assert tops[1].mean() < 0.95 * tops[0].mean()
    assert (tops[1] < tops[0]).float().mean() > 0.9
    assert report.steps == 12
    assert set(penalized[0].state_dict()) == set(plain[0].state_dict())


def test_only_the_matrices_of_the_blocks_feel_the_penalty(testbed: Testbed) -> None:
    method = SpectralNorm()
    with method.attach(testbed.model, testbed.mlps, torch.Generator()):
        (method.objective(step(testbed)) - step(testbed).mean_loss).backward()
    matrices = {matrix.name for mlp in testbed.mlps for matrix in mlp.block_matrices()}
    for name, parameter in testbed.model.named_parameters():
        felt = parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-5
        assert felt == (name in matrices), name


def test_a_layout_that_does_not_name_attention_gets_whole_matrices() -> None:
    model = tiny_model("gpt2")
    mlp = mlps_of(model, Layout(model_types=("gpt2",), blocks="transformer.h", mlps=(("mlp.c_fc", "mlp.c_proj"),)))[0]
    shapes = [tuple(matrix.by_part().shape) for matrix in mlp.block_matrices()]
    assert shapes == [(1, 16, 48), (1, 16, 16), (1, 16, 64), (1, 64, 16)]


def test_half_precision_is_penalized_in_float32(testbed: Testbed) -> None:
    exact = float(penalty_by_svd(testbed).detach())
    testbed.model.to(torch.bfloat16)
    method = SpectralNorm(strength=1.0, iterations=100)
    with method.attach(testbed.model, testbed.mlps, torch.Generator()):
        seen = step(testbed)
        objective = method.objective(seen)
        objective.backward()
    assert objective.dtype == torch.float32
    assert 2 * float((objective - seen.mean_loss).detach()) == pytest.approx(exact, rel=0.02)
    assert testbed.mlps[0].up.weight.grad.dtype == torch.bfloat16


def test_the_seed_decides_and_nothing_is_left(testbed: Testbed) -> None:
    recipe = TrainingRecipe(epochs=1, batch_size=5)
    models = []
    for _ in range(2):
        model, mlps = copy.deepcopy((testbed.model, testbed.mlps))
        method = SpectralNorm(strength=1.0)
        train(model, testbed.retain, recipe, Context(seed=4), regularizer=method, mlps=mlps)
        models.append(model)
        assert method._norms == []
        assert all(parameter.grad is None for parameter in model.parameters())
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_keeps_the_deadline_and_says_when_it_diverges(testbed: Testbed) -> None:
    late = Context(deadline=0.0)
    with pytest.raises(DeadlineExceeded):
        train(testbed.model, testbed.retain, TrainingRecipe(), late, regularizer=SpectralNorm(), mlps=testbed.mlps)
    wild = TrainingRecipe(epochs=30, learning_rate=1e20)
    with pytest.raises(DivergedError):
        train(testbed.model, testbed.retain, wild, Context(), regularizer=SpectralNorm(), mlps=testbed.mlps)
