"""`zero_out` equals its definition: every neuron really removed, in a loop."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from naive import activations_at, down_module, outgoing, row_loss, rows_of, takes_top
from neurons import close, removed
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import Context, Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_testbed
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import Replay
from unmemorize_plugins.methods.unlearning.neuron.zero_out import ZeroOut


@torch.no_grad()
def mean_loss(testbed: Testbed, tokens: str) -> float:
    rows = rows_of(testbed.forget)
    losses = [row_loss(testbed.model, row, start if tokens == "suffix" else 1) for row, start in rows]
    return float(torch.stack(losses).double().mean())


def by_definition(testbed: Testbed, tokens: str) -> torch.Tensor:
    """L(M without the neuron) - L(M), its outgoing weights set to zero and restored."""
    before = mean_loss(testbed, tokens)
    rises = torch.zeros(2, testbed.mlps[0].neurons)
    for layer in range(2):
        for neuron in range(rises.shape[1]):
            weights = outgoing(testbed, layer, neuron)
            kept = weights.detach().clone()
            weights.data.zero_()
            rises[layer, neuron] = mean_loss(testbed, tokens) - before
            weights.data.copy_(kept)
    return rises


@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_attribution_is_what_removing_each_neuron_does(testbed: Testbed, tokens: str) -> None:
    expected = by_definition(testbed, tokens)
    scores = ZeroOut(tokens=tokens, batch_size=4).attribute(testbed, Context())
    assert close(scores, expected)


def test_layers_below_are_skipped(testbed: Testbed) -> None:
    assert Replay(testbed, testbed.forget).additive == [True, True]
    ran = [0, 0]
    with ExitStack() as stack:
        for layer, mlp in enumerate(testbed.mlps):

            def count(*_: object, layer: int = layer) -> None:
                ran[layer] += 1

            stack.callback(mlp.up.module.register_forward_hook(count).remove)
        ZeroOut(reruns_per_batch=6).attribute(testbed, Context())
    passes = 1 + 2 + 1  # the probe, one test for each layer, and the recording of the only batch
    assert ran[0] == passes
    assert ran[1] == passes + testbed.mlps[0].neurons  # the neurons of layer 0; for those of layer 1 nothing is rerun


def test_a_norm_after_down_is_seen_and_the_attribution_still_exact(registry: Registry) -> None:
    """Gemma 2 normalizes what its MLP writes: this block has to run again."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma2", vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=4, intermediate_size=24, max_position_embeddings=64, initializer_range=0.3, pad_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    testbed = tiny_testbed(model, known_mlps(model, registry))
    assert Replay(testbed, testbed.forget).additive == [False, False]
    assert close(ZeroOut().attribute(testbed, Context()), by_definition(testbed, "suffix"))


def test_taylor_is_minus_activation_times_gradient(testbed: Testbed) -> None:
    expected = torch.zeros(2, testbed.mlps[0].neurons)
    for row, start in rows_of(testbed.forget):
        for layer in range(2):
            activations = activations_at(testbed, layer, row).requires_grad_()
            handle = down_module(testbed, layer).register_forward_pre_hook(lambda _, __, a=activations: (a[None],))
            (gradient,) = torch.autograd.grad(row_loss(testbed.model, row, start), activations)
            handle.remove()
            expected[layer] -= (activations * gradient).sum(0).detach() / len(testbed.forget)
    context = Context()
    scores = ZeroOut(estimator="taylor", batch_size=4).attribute(testbed, context)
    assert close(scores, expected)
    assert context.report.flags == {"approximate-attribution"}
    assert not close(scores, by_definition(testbed, "suffix"))


def test_the_exact_estimator_is_not_flagged(testbed: Testbed) -> None:
    context = Context()
    ZeroOut(ratio=0.1).apply(testbed, context)
    assert context.report.flags == set()


def test_silent_neurons_cost_nothing_and_count_as_zero(testbed: Testbed) -> None:
    for name, parameter in testbed.model.named_parameters():
        if name.endswith(("mlp.c_fc.weight", "mlp.c_fc.bias")):
            parameter.data[..., 3] = 0  # GELU(0) = 0
        elif name.endswith(("dense_h_to_4h.weight", "dense_h_to_4h.bias", "gate_proj.weight")):
            parameter.data[3] = 0
    scores = ZeroOut().attribute(testbed, Context())
    assert (scores.view(2, -1)[:, 3] == 0).all()
    assert close(scores, by_definition(testbed, "suffix"))


def test_the_neurons_that_matter_most_are_removed(testbed: Testbed) -> None:
    expected = by_definition(testbed, "suffix")
    ZeroOut(ratio=0.1).apply(testbed, Context())
    gone = torch.tensor(removed(testbed))
    assert all(takes_top(mask, row, 0.1) for mask, row in zip(gone, expected, strict=True))
