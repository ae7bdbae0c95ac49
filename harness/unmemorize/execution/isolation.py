"""What belongs to the whole process: seen, seeded, and put back after a plugin has run."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


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
        before, now = _settable(self._environment), _settable(dict(os.environ))
        return [name for name in {**before, **now} if before.get(name) != now.get(name)]

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
def isolated(seed: int) -> Iterator[GlobalState]:
    """Give the global generators a seed of their own inside, and put back everything global afterwards.

    What is yielded tells what was changed inside, by whom generators were used, too.
    """
    outside = GlobalState()
    with torch.random.fork_rng():  # every accelerator's generator, too
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield GlobalState()
        finally:
            outside.restore()
