"""What an optimizer steps on: float32 copies of parameters that are held in 16 bits, and all others themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_PREFIX = "float32:"


class MasterWeights:
    """The parameters of a model that take gradients, as an optimizer should see them.

    bfloat16 has 8 bits of precision: a step that changes a weight by less than 1/256 of itself, as steps at a learning
    rate of 1e-5 do, would be rounded away each time. So the optimizer steps on a float32 copy, which the parameter is
    then rounded from. A gradient is moved to the copy as soon as the backward pass has it.

    Memory: 8 bytes per 16-bit parameter (the copy and its gradient); nothing where all are in float32.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        import torch
        from torch import nn

        self._model = model
        self._copies: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        self.parameters: list[nn.Parameter] = []
        """What the optimizer is to be given."""
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
                self._copies[name] = parameter, nn.Parameter(parameter.detach().float())
                self.parameters.append(self._copies[name][1])
            elif parameter.requires_grad:
                self.parameters.append(parameter)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Move the gradients of 16-bit parameters to their copies while the context is open; leave none behind."""
        handles: list[Any] = []
        try:
            for parameter, copy in self._copies.values():
                handles.append(parameter.register_post_accumulate_grad_hook(_moving_to(copy)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter, _ in self._copies.values():
                parameter.grad = None

    def write_back(self) -> None:
        """Round the copies into the model, after a step of the optimizer."""
        import torch

        with torch.no_grad():
            for parameter, copy in self._copies.values():
                parameter.copy_(copy)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the model's state, and the copies beside it."""
        copies = {_PREFIX + name: copy.detach() for name, (_, copy) in self._copies.items()}
        return {**self._model.state_dict(), **copies}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the model and the copies from what `state_dict` returned."""
        import torch

        self._model.load_state_dict({name: value for name, value in state.items() if not name.startswith(_PREFIX)})
        with torch.no_grad():
            for name, (_, copy) in self._copies.items():
                copy.copy_(state[_PREFIX + name])


def _moving_to(copy: nn.Parameter) -> Callable[[Tensor], None]:
    def move(parameter: Tensor) -> None:
        assert parameter.grad is not None
        moved = parameter.grad.float()
        copy.grad = moved if copy.grad is None else copy.grad.add_(moved)
        parameter.grad = None

    return move
