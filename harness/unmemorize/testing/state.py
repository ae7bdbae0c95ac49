"""Photographs of what a plugin must leave as it was: global state, and everything about a model but its weights."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

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


class GlobalState:
    """Everything in this process that a plugin could change for everybody else."""

    def __init__(self) -> None:
        self._values = _global_values()
        self._torch, self._numpy, self._python = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._environment, self._folder = dict(os.environ), os.getcwd()
        self._functions = {name: value for name, value in vars(nn.functional).items() if callable(value)}

    def changes(self) -> list[str]:
        """Return in words what is other now than when the snapshot was taken."""
        now = _global_values()
        changed = [name for name, value in self._values.items() if now[name] != value]
        changed += [f"torch.nn.functional.{name} was replaced" for name in self._replaced()]
        return changed + [f"the environment variable {name} was changed" for name in self._variables()]

    def _variables(self) -> list[str]:
        return differences(_settable(self._environment), _settable(dict(os.environ)))

    def _replaced(self) -> list[str]:
        return [name for name, value in self._functions.items() if getattr(nn.functional, name, None) is not value]

    def restore(self) -> None:
        """Put everything back."""
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        now = _global_values()
        for name, (_, put) in _SWITCHES.items():
            if now[name] != self._values[name]:
                put(self._values[name])
        for name in self._replaced():
            setattr(nn.functional, name, self._functions[name])
        for name in self._variables():
            os.environ.pop(name, None)
            os.environ.update({name: self._environment[name]} if name in self._environment else {})
        if os.getcwd() != self._folder:
            os.chdir(self._folder)


_SWITCHES: dict[str, tuple[Any, Any]] = {
    "torch's default dtype was changed": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device was changed": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    "torch's grad mode was changed": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads was changed": (torch.get_num_threads, torch.set_num_threads),
    "torch's switch for deterministic algorithms was changed": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's precision of matrix products was changed": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch's anomaly detection was changed": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
}
"""What to call a changed switch, how to read it, and how to set it."""


def _global_values() -> dict[str, Any]:
    return {
        "torch's global random generator was used": _digest(torch.get_rng_state().numpy().tobytes()),
        "numpy's global random generator was used": _digest(repr(np.random.get_state()).encode()),
        "Python's global random generator was used": _digest(repr(random.getstate()).encode()),
        **{name: read() for name, (read, _) in _SWITCHES.items()},
        "hooks on all modules (torch.nn.modules.module) were left behind": _global_hooks(),
        "the working folder was changed": os.getcwd(),
    }


def _settable(environment: dict[str, str]) -> dict[str, str]:
    """Leave out what torch sets by itself when parts of it are imported."""
    return {name: value for name, value in environment.items() if not name.startswith(("TORCH", "TRITON", "PYTEST"))}


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _global_hooks() -> tuple[int, ...]:
    module = nn.modules.module
    return tuple(len(value) for name, value in sorted(vars(module).items()) if name.endswith("_hooks"))


@contextmanager
def alone() -> Iterator[GlobalState]:
    """Give what happens inside fixed global generators, one thread and a snapshot, and put all back afterwards.

    As the core does it: a method that draws from the global generators is found by the snapshot, not by chance.
    """
    outside = GlobalState()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(_SEED)
        np.random.seed(_SEED % 2**32)
        random.seed(_SEED)
        yield GlobalState()
    finally:
        outside.restore()


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


def listed(items: list[str], most: int = 3) -> str:
    """Return items in words, the first few of them by name."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


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
