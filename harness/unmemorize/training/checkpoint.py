"""Checkpoints: a killed training goes on where it was, with the same result."""

from __future__ import annotations

import os
import pickle
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Stateful(Protocol):
    """A model, or anything else that gives its tensors away and takes them back."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""

    def load_state_dict(self, state: dict[str, Tensor]) -> object:
        """Take the tensors back."""


class Position(NamedTuple):
    """How far a training run has come."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Real tokens seen."""
    seconds: float = 0.0
    """Seconds of training, those before an interruption included."""
    epoch_loss: float = 0.0
    """Sum of the step losses of the running epoch."""


class Checkpoint:
    """Saves a training run to one file, every so many seconds and after each epoch.

    The file holds tensors, numbers and strings only and is read with `weights_only=True`. It is written beside
    its place and moved there, so it is whole or absent; a file that cannot be read, or that belongs to another
    run, is as good as none. Several processes that make the same run may share it: each state in it is a state
    of that run.
    """

    def __init__(self, path: Path, *, every: float = 30.0) -> None:
        """Keep the run in the file `path`, saved at least every `every` seconds of training."""
        self.path = path
        self.every = every
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved_at >= self.every

    def save(self, run: str, model: Stateful, optimizer: torch.optim.Optimizer, position: Position) -> None:
        """Write the state of the run called `run`."""
        import torch

        state = {
            "run": run,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "position": position._asdict(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        try:
            torch.save(state, beside)
            os.replace(beside, self.path)
        finally:
            beside.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def restore(self, run: str, model: Stateful, optimizer: torch.optim.Optimizer) -> Position:
        """Put the saved state of `run` into model and optimizer and return where it was; without one, the start."""
        state = self._read()
        if state is None or state.get("run") != run:
            return Position()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])

    def remove(self) -> None:
        """Delete the file: the run has ended."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        import torch

        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError):
            return None
        return state if isinstance(state, dict) else None
