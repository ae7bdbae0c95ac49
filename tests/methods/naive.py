"""Slow and obvious pieces that the tests of methods recompute definitions with: one sequence, one token at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unmemorize import Sequences, Testbed


def rows_of(sequences: Sequences) -> list[tuple[list[int], int]]:
    """Each row without padding, and where its suffix starts."""
    return [
        (sequences.tokens[i, : sequences.lengths[i]].tolist(), int(sequences.suffix_starts[i]))
        for i in range(len(sequences))
    ]


def row_loss(model: torch.nn.Module, row: list[int], first: int = 1) -> Tensor:
    """Mean cross-entropy of the tokens of one row from position `first` on."""
    logits = model(input_ids=torch.tensor([row])).logits[0].float()
    losses = [-logits[t - 1].log_softmax(-1)[row[t]] for t in range(max(1, first), len(row))]
    return torch.stack(losses).mean()


def matrix_weights(testbed: Testbed) -> dict[str, torch.nn.Parameter]:
    """The MLP matrices, found by their names in the state dict."""
    names = ("c_fc.weight", "mlp.c_proj.weight", "dense_h_to_4h.weight", "dense_4h_to_h.weight",
             "gate_proj.weight", "up_proj.weight", "down_proj.weight")  # fmt: skip
    return {name: p for name, p in testbed.model.named_parameters() if name.endswith(names)}


def outgoing(testbed: Testbed, layer: int, neuron: int) -> Tensor:
    """The weights by which one neuron writes to the residual stream."""
    down = [
        (n, p)
        for n, p in matrix_weights(testbed).items()
        if n.endswith(("mlp.c_proj.weight", "4h_to_h.weight", "down_proj.weight"))
    ]
    name, weight = down[layer]
    return weight[neuron] if name.endswith("c_proj.weight") else weight[:, neuron]


def down_module(testbed: Testbed, layer: int) -> torch.nn.Module:
    """The module whose input is the neurons of a layer."""
    names = [n for n, m in testbed.model.named_modules() if n.endswith(("mlp.c_proj", "dense_4h_to_h", "down_proj"))]
    return testbed.model.get_submodule(names[layer])


def activations_at(testbed: Testbed, layer: int, row: list[int]) -> Tensor:
    """(positions, neurons): what enters `down` of one layer for one row."""
    seen: list[Tensor] = []
    handle = down_module(testbed, layer).register_forward_hook(lambda _, inputs, __: seen.append(inputs[0][0].detach()))
    with torch.no_grad():
        testbed.model(input_ids=torch.tensor([row]))
    handle.remove()
    return seen[0]


def top_by_sort(scores: Tensor, count: int) -> Tensor:
    """The mask of the `count` largest, by a full stable sort."""
    values = scores.detach().flatten().tolist()
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.view(scores.shape)


def takes_top(mask: Tensor, scores: Tensor, ratio: float, within: float = 1e-3) -> bool:
    """Whether the mask is that of a share of the largest; scores that rounding orders may stand on either side."""
    scores = scores.detach()
    margin = within * float(scores.abs().max())
    return int(mask.sum()) == int(ratio * mask.numel()) and bool(scores[mask].min() >= scores[~mask].max() - margin)


def changed(testbed: Testbed, act: Callable[[], None]) -> dict[str, Tensor]:
    """The mask of what `act` changed in every parameter, by name."""
    before = {name: p.detach().clone() for name, p in testbed.model.named_parameters()}
    act()
    return {name: p.detach() != before[name] for name, p in testbed.model.named_parameters()}
