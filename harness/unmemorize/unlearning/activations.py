"""See, and change, what enters each MLP's `down` while the model runs, experts included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.layout import MLP

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def neuron_activations(mlps: Sequence[MLP], visit: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Show (and, if `visit` returns a tensor, replace) what enters each MLP's `down`, while the context is open.

    The activation of an expert's neuron is 0 where the expert is not chosen, and otherwise counts with the weight that
    the router gives the expert, so that row n of `down` times activation n is always what neuron n adds.

    Args:
        mlps: the MLPs to watch.
        visit: called with the index in `mlps` and the activations (batch, position, neuron).

    Memory: for E experts of m neurons, E * m numbers per token while their MLP runs.
    """
    with ExitStack() as stack:
        for index, mlp in enumerate(mlps):
            stack.enter_context(_shown(mlp, partial(visit, index)))
        yield


@contextmanager
def _shown(mlp: MLP, visit: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    places: tuple[int, ...] = ()

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal places
        places = inputs[0].shape[:2]  # some MLPs run on all positions of all rows in one dimension

    def show(activations: Tensor) -> Tensor:
        whole = activations if activations.ndim == 3 else activations.reshape(*places, -1)
        replaced = visit(whole)
        return activations if replaced is None else replaced.reshape(activations.shape)

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (show(inputs[0]), *inputs[1:])

    with ExitStack() as stack:
        stack.callback(mlp.block.register_forward_pre_hook(note).remove)
        if mlp.routed:
            stack.enter_context(running_as(mlp.down.module, partial(_experts, mlp, show)))
        else:
            stack.callback(mlp.down.module.register_forward_pre_hook(enter).remove)
        yield


def _experts(
    mlp: MLP, show: Callable[[Tensor], Tensor], hidden: Tensor, chosen: Tensor | None = None, weight: Any = None
) -> Tensor:
    """Run experts one after another, with their activations shown in between.

    Args:
        mlp: E experts of m neurons.
        show: shown (N, E * m) and gives what to go on with.
        hidden: (N, d), the tokens; or (E * N, d), the tokens as each expert sees them.
        chosen: (N, k), the experts of each token; every expert sees every token where it is not given.
        weight: (N, k), what each of these counts.

    Returns:
        (N, d), the weighted sum over experts; or (E * N, d), what each expert adds.
    """
    up, down, experts = mlp.up.by_input(), mlp.down.by_input(), mlp.down.module
    count, neurons, width = down.shape
    if chosen is None:
        activations = _gated(experts, hidden.view(count, -1, width) @ up)  # (E, N, m)
        shown = show(activations.transpose(0, 1).flatten(1)).unflatten(1, (count, neurons))
        return (shown.transpose(0, 1) @ down).reshape(-1, width)
    biases = [getattr(experts, f"{matrix.parameter}_bias", None) for matrix in (mlp.up, mlp.down)]
    shown = hidden.new_zeros(len(hidden), count, neurons)
    routed: list[tuple[int, Tensor, Tensor]] = []  # an expert, its tokens, and (tokens, 1) what it counts for them
    for expert in chosen.unique().tolist():
        rows = (chosen == expert).any(dim=1).nonzero().flatten()
        share = weight.masked_fill(chosen != expert, 0).sum(dim=1)[rows, None]
        gated = _gated(experts, _plus(hidden[rows] @ up[expert], biases[0], expert))
        shown[rows, expert] = (gated * share).to(hidden.dtype)
        routed.append((expert, rows, share))
    shown = show(shown.flatten(1)).view_as(shown)
    written = hidden.new_zeros(hidden.shape)
    for expert, rows, share in routed:
        added = shown[rows, expert] @ down[expert]
        if biases[1] is not None:
            added = added + biases[1][expert] * share
        written = written.index_add(0, rows, added.to(written.dtype))
    return written


def _gated(experts: nn.Module, projected: Tensor) -> Tensor:
    own = getattr(experts, "_apply_gate", None)
    if own is not None:
        gated: Tensor = own(projected)
        return gated
    gate, up = projected.chunk(2, dim=-1)
    return experts.act_fn(gate) * up  # type: ignore[operator]


def _plus(projected: Tensor, bias: Tensor | None, expert: int) -> Tensor:
    return projected if bias is None else projected + bias[expert]


@contextmanager
def running_as(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `module` run `forward` instead of its own."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
