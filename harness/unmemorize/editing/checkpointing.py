"""Recompute each transformer block in the backward pass, instead of keeping what it computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.layout import MLP
from unmemorize.models.versions import holds_cache

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def checkpointed_blocks(mlps: Sequence[MLP]) -> Iterator[None]:
    """Let every transformer block keep only its input for the backward pass while the context is open.

    The gradients are the same; in train mode dropout draws the same. It works in eval mode too, where transformers' own
    checkpointing does nothing. What a hook inside a block does is done again in the backward pass, so hooks must stay
    until that has ended. Passes without gradients, and passes that use a cache of keys and values, run as ever.

    Args:
        mlps: the MLPs of the model; their blocks are recomputed.

    Cost: one more forward pass of the blocks for each backward pass.
    Memory: for L blocks of width d, L * d numbers per token and the activations of one block, not of L.
    """
    with ExitStack() as stack:
        for block in {id(mlp.block): mlp.block for mlp in mlps}.values():  # one may have several
            stack.enter_context(_recomputing(block))
        yield


@contextmanager
def _recomputing(block: nn.Module) -> Iterator[None]:
    before = block.__dict__.get("forward")
    block.__dict__[_BEFORE] = before
    # A bound method: a copy of the model that is made inside runs its own blocks, not these.
    block.forward = MethodType(_recomputed, block)
    try:
        yield
    finally:
        del block.forward, block.__dict__[_BEFORE]
        if before is not None:
            block.forward = before


_BEFORE = "_forward_before_checkpointing"


def _recomputed(block: nn.Module, *arguments: Any, **named: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint

    forward = block.__dict__[_BEFORE] or partial(type(block).forward, block)
    if not torch.is_grad_enabled() or holds_cache(arguments, named):  # filled twice if run twice
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=block.training, **named)
