"""A caller's torch and a caller's model: what they are set to is out of the way while we work, and back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let torch compute as it does by default, whatever the caller or a plugin has set.

    Inside, gradients are kept, new tensors are float32 on the CPU unless they say otherwise, nothing runs in autocast,
    and `torch.compile` is not in force (compiled code does not see hooks that are set later).
    """
    import torch

    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def as_left(model: nn.Module) -> Iterator[bool]:
    """Work on a caller's model: inside it is in eval mode, and every parameter may take gradients.

    Afterwards the modes, the flags and the gradients are those that the caller left.

    Yields:
        Whether the caller had left gradient checkpointing on.
    """
    left = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    with evaluation_mode(model) as recomputing:
        for parameter, _, _ in left:
            parameter.requires_grad_()
            parameter.grad = None
        try:
            yield recomputing
        finally:
            for parameter, flag, gradient in left:
                parameter.requires_grad_(flag)
                parameter.grad = gradient
