"""The gradient of every sequence's own loss with respect to MLP matrices, from one ordinary backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.layout import Matrix
from unmemorize.contracts.testbed import Sequences
from unmemorize.editing.edits import gradients_of, visited_gradients
from unmemorize.training.losses import Tokens, sequence_losses

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

GRADIENTS_AT_ONCE = 2**26
"""Numbers in the gradients that are shown together, at most: 256 MiB; one row of one matrix always fits."""

Visit = Callable[[Matrix, "Tensor"], None]


def visit_sequence_gradients(
    model: PreTrainedModel, batch: Sequences, matrices: Sequence[Matrix], visit: Visit, tokens: Tokens = "all"
) -> Tensor:
    """Show `visit` the gradients of the loss of each row of `batch`, matrix by matrix, and return the losses (B,).

    In y = x W^T, row i's gradient with respect to W is  g_i = sum over positions t of (dl_i/dy_it) (x_it)^T.  Rows do
    not see each other, so dl_i/dy_it is what the backward pass of the *sum* of all losses brings to y_it.

    Args:
        model: a causal language model; no gradient, flag or hook is left on it.
        batch: B right-padded rows.
        matrices: the matrices whose gradients are wanted.
        visit: called with a matrix and its (R, outputs, inputs) float32 gradients, whichever way round it is stored: of
            all rows of the batch together, or of one part of them after another where they are large. For a stack of
            experts, (1, experts, outputs, inputs), one row after another.
        tokens: which real tokens each row's loss is averaged over.

    Cost: one forward pass, and one backward pass that computes no weight gradients and ends at the lowest matrix; where
    there are experts, a forward and backward pass for each row beside.
    Memory: the activations of the batch, and at any time the gradients of one matrix, `GRADIENTS_AT_ONCE` numbers or
    one row's.
    """
    import torch

    plain = [matrix for matrix in matrices if matrix.weight.ndim == 2]
    stacks = [matrix for matrix in matrices if matrix.weight.ndim > 2]

    def show(matrix: Matrix, gradient: Tensor) -> None:
        visit(matrix, (gradient.mT if matrix.stores_input_first else gradient)[None].float())

    for row in range(len(batch) if stacks else 0):
        with visited_gradients(model, stacks, show):
            sequence_losses(model, batch.select([row]).cut(), tokens=tokens).sum().backward()
    with gradients_of(model, []), _watched(plain, len(batch), visit), torch.enable_grad():
        losses = sequence_losses(model, batch, tokens=tokens)
        if plain:
            losses.sum().backward()
    return losses.detach()


@contextmanager
def _watched(matrices: Sequence[Matrix], rows: int, visit: Visit) -> Iterator[None]:
    handles: list[Any] = []

    def watch(matrix: Matrix) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()

            def backward(gradient: Tensor) -> None:
                pulled = gradient.reshape(rows, -1, gradient.shape[-1])
                given = x.reshape(rows, -1, x.shape[-1])
                size = max(1, GRADIENTS_AT_ONCE // matrix.weight.numel())
                for gradients, seen in zip(pulled.split(size), given.split(size), strict=True):
                    visit(matrix, gradients.float().mT @ seen.float())

            if not output.requires_grad:  # no parameter takes gradients: the graph begins here
                output.requires_grad_()
            output.register_hook(backward)

        return forward

    try:
        for matrix in matrices:
            handles.append(matrix.module.register_forward_hook(watch(matrix)))
        yield
    finally:
        for handle in handles:
            handle.remove()
