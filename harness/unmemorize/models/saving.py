"""A model as a folder, read again before anybody is told that it is saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.errors import DataError
from unmemorize.files.error_reasons import reason_of, system_error
from unmemorize.models.caller import plain_torch
from unmemorize.models.loading import quiet
from unmemorize.models.origins import CONFIG

if TYPE_CHECKING:
    from torch import Tensor


@plain_torch()
def save_model(model: Any, folder: Path, tokenizer: Any = None, *, place: Path | None = None) -> None:
    """Write a model, and its tokenizer if it has one, into a new folder, and compare the folder with the model.

    Every parameter and buffer has to come back with its value and dtype. Where the files name them as the model does,
    they are compared one by one; otherwise the folder is loaded as plain transformers loads it.

    Args:
        model: any model of transformers.
        folder: a new folder.
        tokenizer: its tokenizer, if it has one.
        place: what errors call the folder, if it is to be renamed.

    Raises:
        DataError: it cannot be saved or loaded again, or gives another model back; the folder is then removed.
        OSError: the system does not let it be written, likewise.

    Cost: one read of the files. Memory: one tensor at a time, or one more copy of the model where names differ.
    """
    try:
        with quiet():
            model.save_pretrained(folder)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            wrong = _difference(model, folder)
    except Exception as error:  # whatever transformers raises at settings or files that it does not take
        shutil.rmtree(folder, ignore_errors=True)
        problem = system_error(error)
        if problem and not isinstance(problem, FileNotFoundError):  # what is missing was not written by the model
            raise problem from error
        raise DataError(
            f"the model could not be saved to {place or folder}: {reason_of(error)}",
            expected="a model that save_pretrained takes",
            fix="if generation settings are named, correct model.generation_config",
        ) from error
    if wrong:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(
            f"the model that was saved to {place or folder} is not the one that was measured: {wrong}",
            expected="every weight as it was, when the folder is loaded; so the folder was removed",
            fix="bring the model into one dtype before, e.g. model.float(); torch.save(model.state_dict(), FILE) keeps "
            "what is in memory",
        )


def _difference(model: Any, folder: Path) -> str:
    """Return in words what is other in the folder than in the model; nothing if all is the same."""
    state, files = model.state_dict(), _Files(folder)
    if _names_say_all(model, state, files, folder):
        return next(_differences({name: state[name] for name in files}, files), "")
    return next(_differences(state, _loaded(model, folder)), "")


class _Files(Mapping[str, "Tensor"]):
    """The tensors of a folder, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._places: dict[str, Path] = {}
        for place in folder.glob("*.safetensors"):
            with safe_open(place, "pt") as file:
                self._places |= dict.fromkeys(file.keys(), place)

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(self._places[name], "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _names_say_all(model: Any, state: Mapping[str, Tensor], files: _Files, folder: Path) -> bool:
    """Whether the files alone tell what loading gives: the model's own names, ties as configured, and one dtype."""
    tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    shared = all(state[name].data_ptr() == state[source].data_ptr() for name, source in tied.items())
    named = files.keys() <= state.keys() and state.keys() - files.keys() <= tied.keys()
    said = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("dtype")
    return shared and named and {str(value.dtype) for value in state.values()} == {f"torch.{said}"}


def _loaded(model: Any, folder: Path) -> Mapping[str, Tensor]:
    from transformers import AutoModelForCausalLM

    trusted = type(model).__module__.startswith("transformers_modules")
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=trusted)
    state: Mapping[str, Tensor] = again.state_dict()
    return state


def _differences(state: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> Iterator[str]:
    for name, value in state.items():
        if name not in again:
            yield f"{name} is missing"
            continue
        other = again[name]
        if (other.shape, other.dtype) != (value.shape, value.dtype):
            yield f"{name} is {tuple(other.shape)} {other.dtype}, and was {tuple(value.shape)} {value.dtype}"
        elif not other.equal(value.detach().cpu()):
            yield f"{name} has other values"
