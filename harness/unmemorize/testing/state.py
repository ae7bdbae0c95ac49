"""Snapshots of what a plugin must leave as it was: global state, and everything about a model but its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.process_state import ProcessState
from unmemorize.execution.isolation import isolated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SEED = 20_250_101
_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_WEIGHT_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@contextmanager
def alone() -> Iterator[ProcessState]:
    """Give what happens inside fixed global generators, one thread and a snapshot, and restore all of it afterwards.

    As the core does it: a method that draws from the global generators is found by the snapshot, not by chance.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with isolated(_SEED, Namespaces()) as guard:
            yield guard.state
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class ModelState:
    """What must be the same before and after, whatever became of the weights; each value by what it is called."""

    hooks: dict[str, Any]
    """Hooks, parametrizations and replaced `forward`s."""
    modes: dict[str, Any]
    """Training mode, gradients and their flags, config."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelState:
        """Take the snapshot."""
        modules = list(model.named_modules())
        hooks: dict[str, Any] = {}
        for name, module in modules:
            place = name or "the model"
            hooks |= {f"{_hook_word(kind)} on {place}": _size(module, kind) for kind in _MODULE_HOOKS}
            hooks[f"a replaced `forward` on {place}"] = id(module.__dict__.get("forward"))
            hooks[f"another class (a parametrization or a wrapper) of {place}"] = type(module)
        modes: dict[str, Any] = {f"training mode of {name or 'the model'}": module.training for name, module in modules}
        for name, module in modules:
            modes[f"gradient checkpointing of {name or 'the model'}"] = getattr(module, "gradient_checkpointing", None)
        for name, parameter in model.named_parameters():
            hooks |= {f"{_hook_word(kind)} on the weight {name}": _size(parameter, kind) for kind in _WEIGHT_HOOKS}
            modes[f"requires_grad of {name}"] = parameter.requires_grad
            modes[f"a gradient left in {name}"] = parameter.grad is not None
        modes["the model's config"] = model.config.to_dict()
        modes["the model's generation config"] = _dictionary(model.generation_config)
        return cls(hooks, modes)


def _hook_word(kind: str) -> str:
    return "a " + kind.strip("_").removesuffix("s").replace("_", " ")


def _size(holder: Any, kind: str) -> int:
    return len(getattr(holder, kind, None) or ())


def _dictionary(config: Any) -> Any:
    return None if config is None else config.to_dict()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names whose values differ, those that are only on one side included."""
    return [name for name in {**before, **after} if before.get(name, _NONE) != after.get(name, _NONE)]


_NONE = object()


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_bits(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that differ in any bit, in shape or in dtype, NaN being equal to NaN."""
    return [name for name in {**before, **after} if not _equal(before.get(name), after.get(name))]


def _equal(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    if left is None or right is None or left.shape != right.shape or left.dtype != right.dtype:
        return False
    return bool(((left == right) | ((left != left) & (right != right))).all())  # noqa: PLR0124 - NaN
