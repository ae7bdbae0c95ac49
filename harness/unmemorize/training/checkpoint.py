"""Checkpoints: a killed training goes on where it was, with the same result."""

from __future__ import annotations

import hashlib
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol

from unmemorize.errors import CacheWarning
from unmemorize.files.atomic import atomic_file, sweep
from unmemorize.files.error_reasons import reason_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_FORMAT: Final = 1
_DIGEST: Final = 16
"""Bytes of a digest."""


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

    The file holds tensors, numbers and strings only and is read with `weights_only=True`. It is whole or absent, and
    begins with the digest of the rest; a file that is damaged, or that belongs to another run, is left out with a
    `CacheWarning`. One that cannot be written costs the checkpoint, not the training. When the training has ended the
    file still holds its last state, so that nothing is lost before the model is kept: remove it then.
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
        state = {
            "run": run,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "position": position._asdict(),
        }
        try:
            with atomic_file(self.path) as partial:
                _write(state, partial)
        except (OSError, RuntimeError) as error:  # torch says a full disk in its own way
            self._warn(f"cannot be written ({reason_of(error)}): the training goes on without it")
        self._saved_at = time.monotonic()

    def restore(self, run: str, model: Stateful, optimizer: torch.optim.Optimizer) -> Position:
        """Put the saved state of `run` into model and optimizer and return where it was; without one, the start."""
        sweep(self.path.parent)
        state = self._read()
        if state is None:
            return Position()
        if state["run"] != run:
            self._warn("belongs to another training: this one starts from the beginning, and replaces it")
            return Position()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])

    def remove(self) -> None:
        """Delete the file: the trained model is kept elsewhere."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        import torch

        try:
            with self.path.open("rb") as file:
                header = file.read(len(_header("")) + 2 * _DIGEST)
                if header != _header(hashlib.file_digest(file, _blake2b).hexdigest()):
                    raise ValueError("its digest is of something else")
                file.seek(len(header))
                state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                return state
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever torch raises at a file of another release of it
            self._warn(f"is damaged, or of another version ({reason_of(error)}): training starts from the beginning")
            return None

    def _warn(self, what: str) -> None:
        warnings.warn(f"the checkpoint {self.path} {what}", CacheWarning, stacklevel=3)


class _Digesting:
    """A file that is being written, and the digest of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, _blake2b()

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _write(state: dict[str, Any], place: Path) -> None:
    import torch

    with place.open("wb") as file:
        file.write(_header("0" * 2 * _DIGEST))
        digesting = _Digesting(file)
        torch.save(state, digesting)  # type: ignore[arg-type]
        file.seek(0)
        file.write(_header(digesting.hexdigest()))


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST)


def _header(digest: str) -> bytes:
    return f"unmemorize-checkpoint {_FORMAT} {digest}\n".encode()
