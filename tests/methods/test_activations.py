"""`activations` equals its definition, computed neuron by neuron and position by position."""

from __future__ import annotations

import pytest
import torch
from naive import activations_at, outgoing, rows_of, takes_top
from neurons import removed

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.unlearning.neuron.activations import Activations


def by_definition(testbed: Testbed, sign: str) -> torch.Tensor:
    scores = torch.zeros(2, testbed.mlps[0].neurons)
    for layer in range(2):
        read = []
        for row, start in rows_of(testbed.forget):
            seen = activations_at(testbed, layer, row)
            read += [seen[position - 1] for position in range(start, len(row))]  # position - 1 predicts the token
        for neuron in range(scores.shape[1]):
            values = torch.stack([at[neuron] for at in read])
            mean = values.abs().mean() if sign == "mean_of_abs" else values.mean().abs()
            scores[layer, neuron] = mean * outgoing(testbed, layer, neuron).norm()
    return scores


@pytest.mark.parametrize("sign", ["mean_of_abs", "abs_of_mean"])
def test_attribution_is_its_definition(testbed: Testbed, sign: str) -> None:
    scores = Activations(sign=sign, batch_size=4).attribute(testbed, Context())
    assert torch.allclose(scores, by_definition(testbed, sign).flatten(), rtol=1e-4, atol=1e-6)


def test_the_top_share_of_every_layer_is_removed_and_nothing_else(testbed: Testbed) -> None:
    scores = by_definition(testbed, "mean_of_abs")
    before = {name: p.detach().clone() for name, p in testbed.model.named_parameters()}
    Activations(ratio=0.1).apply(testbed, Context())
    gone = torch.tensor(removed(testbed))
    assert all(takes_top(mask, row, 0.1) for mask, row in zip(gone, scores, strict=True))
    others = [n for n in before if not n.endswith(("mlp.c_proj.weight", "4h_to_h.weight", "down_proj.weight"))]
    assert all(torch.equal(before[n], p) for n, p in testbed.model.named_parameters() if n in others)


def test_global_scope_takes_the_share_over_all_layers(testbed: Testbed) -> None:
    scores = by_definition(testbed, "mean_of_abs")
    context = Context()
    Activations(ratio=0.05, scope="global").apply(testbed, context)
    gone = torch.tensor(removed(testbed))
    assert takes_top(gone, scores, 0.05)
    assert context.report.notes["selected_neurons"] == int(gone.sum())


def test_an_attribution_is_shared_over_ratios_and_charged_to_each(testbed: Testbed) -> None:
    calls = []

    class Counted(Activations):
        def attribute(self, testbed: Testbed, context: Context) -> torch.Tensor:
            calls.append(1)
            return super().attribute(testbed, context)

    shared = Context().shared_work
    contexts = [Context(shared_work=shared) for _ in range(3)]
    for ratio, context in zip((0.05, 0.1, 0.2), contexts, strict=True):
        Counted(ratio=ratio).apply(testbed, context)
    assert len(calls) == 1
    assert contexts[2].report.seconds["attribute"] == pytest.approx(contexts[0].report.seconds["attribute"])
    Counted(ratio=0.1, sign="abs_of_mean").apply(testbed, Context(shared_work=shared))
    assert len(calls) == 2
