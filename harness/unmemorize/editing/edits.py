"""Set selected neurons or weights to zero, and collect the gradients of a few weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.layout import MLP, Matrix

if TYPE_CHECKING:
    from torch import Tensor, nn


def matrices_of(mlps: Sequence[MLP]) -> dict[str, Matrix]:
    """Return every MLP matrix by the name of its parameter, in a fixed order."""
    return {matrix.name: matrix for mlp in mlps for matrix in mlp.matrices}


def groups_within(
    matrices: Iterable[Matrix], bytes_for: Callable[[Matrix], float], gigabytes: float
) -> list[list[Matrix]]:
    """Return consecutive matrices in groups that need at most `gigabytes` GiB together; one matrix always fits.

    Args:
        matrices: the matrices in their order.
        bytes_for: the bytes that a matrix needs.
        gigabytes: GiB for a group.
    """
    groups: list[list[Matrix]] = [[]]
    left = gigabytes * 2**30
    for matrix in matrices:
        if groups[-1] and bytes_for(matrix) > left:
            groups.append([])
            left = gigabytes * 2**30
        groups[-1].append(matrix)
        left -= bytes_for(matrix)
    return groups


def zero_weights(mlps: Sequence[MLP], masks: Mapping[str, Tensor]) -> None:
    """Set the weights to zero at which a mask is True.

    Args:
        mlps: the MLPs of the model.
        masks: bool tensors by parameter name, in each parameter's own shape.
    """
    import torch

    with torch.no_grad():
        for name, matrix in matrices_of(mlps).items():
            if name in masks:
                matrix.weight.masked_fill_(masks[name].to(matrix.weight.device), 0.0)


def zero_neurons(mlps: Sequence[MLP], masks: Iterable[Tensor]) -> None:
    """Remove neurons from the residual stream: set their outgoing weights to zero.

    Args:
        mlps: the MLPs of the model.
        masks: (neurons,) bool for each MLP, True at the neurons to remove.
    """
    import torch

    with torch.no_grad():
        for mlp, mask in zip(mlps, masks, strict=True):
            rows = mlp.down.by_input()
            rows[mask.to(rows.device).view(rows.shape[:-1])] = 0.0


@contextmanager
def gradients_of(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let only `weights` collect gradients inside; afterwards no gradient is left and all flags are as before."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wanted = {id(weight) for weight in weights}
    for parameter, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
            parameter.grad = None


@contextmanager
def visited_gradients(
    model: nn.Module, matrices: Sequence[Matrix], visit: Callable[[Matrix, Tensor], None]
) -> Iterator[None]:
    """Show `visit` the gradient of each matrix the moment that a backward pass inside has computed it, then drop it.

    Args:
        model: the model; inside, only the matrices take gradients, and afterwards everything is as before.
        matrices: the matrices whose gradients are wanted.
        visit: called with a matrix and its gradient, in the parameter's own shape and dtype; it may use the tensor up.

    Memory: the gradient of one matrix at a time.
    """

    import torch

    def showing(matrix: Matrix) -> Callable[[Tensor], None]:
        def show(weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            assert gradient is not None
            with torch.no_grad():
                visit(matrix, gradient)

        return show

    handles: list[Any] = []
    with gradients_of(model, [matrix.weight for matrix in matrices]), torch.enable_grad():
        try:
            for matrix in matrices:
                handles.append(matrix.weight.register_post_accumulate_grad_hook(showing(matrix)))
            yield
        finally:
            for handle in handles:
                handle.remove()
