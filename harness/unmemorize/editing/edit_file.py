"""Which weights an edit changed, as a file: one bit per weight of every matrix that it touched."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unmemorize.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

_FORMAT = 1
DENSE = 0.5
"""A parameter of which a larger share was changed is named whole, without a mask: training on changes everything."""


class ChangedParameter(NamedTuple):
    """What became of one parameter."""

    shape: tuple[int, ...]
    changed: int
    """How many of its weights."""
    zeroed: bool
    """Whether every changed weight is now zero, so that the mask alone repeats the edit."""
    mask: Tensor | None
    """(ceil(n / 8),) uint8, row-major, the first weight in the highest bit; none where most weights were changed."""


Edits = dict[str, ChangedParameter]
"""By the parameter's name; parameters that were not touched are not in it."""


def edits_of(model: nn.Module, original: Callable[[str], Tensor]) -> Edits:
    """Return what is other in a model than the `original` of each name says. Memory: one parameter, and the masks."""
    import torch

    with torch.no_grad():
        edits = {}
        for name, parameter in model.named_parameters():
            now = parameter.detach().cpu()
            differs = now != original(name)
            changed = int(differs.sum())
            if not changed:
                continue
            mask = None if changed > DENSE * differs.numel() else _packed(differs)
            edits[name] = ChangedParameter(tuple(now.shape), changed, not bool(now[differs].any()), mask)
        return edits


def write_edits(edits: Edits, path: Path) -> None:
    """Write edits as a safetensors file: a packed mask for each parameter, and the rest as JSON in its metadata."""
    from safetensors.torch import save_file

    about = {name: edit._replace(mask=None)._asdict() for name, edit in edits.items()}
    masks = {name: edit.mask for name, edit in edits.items() if edit.mask is not None}
    save_file(masks, path, metadata={"format": str(_FORMAT), "edits": json.dumps(about)})


def read_edits(path: str | Path) -> Edits:
    """Return the edits that `write_edits` wrote.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["edits"])
            masks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as a file of edits: {error}",
            expected="`edits.safetensors` from a folder that `unmemorize mitigate` wrote",
            fix="name that file, or make it again with `unmemorize mitigate`",
        ) from error
    return {
        name: ChangedParameter(tuple(entry["shape"]), entry["changed"], entry["zeroed"], masks.get(name))
        for name, entry in about.items()
    }


def apply_edits(model: nn.Module, edits: Edits | str | Path) -> int:
    """Set to zero, in place, what an edit set to zero in another copy of the same model; return how many weights.

    Args:
        model: the model that the edit was made of, or another of the same shapes; it may be compiled or wrapped.
        edits: the edits, or the file that holds them.

    Raises:
        DataError: the edit did more than set weights to zero, or the model has other parameters, or parameters that
            cannot be edited where they are (adapters, quantized weights).
    """
    import torch

    from unmemorize.models.gate import admitted

    model = admitted(model, in_place=True)
    with torch.no_grad():
        edits = edits if isinstance(edits, dict) else read_edits(edits)
        parameters = dict(model.named_parameters())
        for name, edit in edits.items():
            _check_applicable(name, edit, parameters.get(name))
        for name, edit in edits.items():
            assert edit.mask is not None
            weights = parameters[name]
            weights.masked_fill_(_unpacked(edit.mask, edit.shape).to(weights.device), 0.0)
        return sum(edit.changed for edit in edits.values())


def _check_applicable(name: str, edit: ChangedParameter, parameter: Tensor | None) -> None:
    if parameter is None or tuple(parameter.shape) != edit.shape:
        there = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
        raise DataError(
            f"the edit is of a parameter {name!r} of shape {edit.shape}, and the model has {there}",
            expected="the model that the edit was made of",
            fix="load the base model that the model card names",
        )
    if edit.mask is None or not edit.zeroed:
        raise DataError(
            f"the edit gave weights of {name!r} new values, which a mask does not hold",
            expected="an edit that only sets weights to zero (neuron and weight unlearning)",
            fix="load the mitigated model itself",
        )


def _packed(mask: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.packbits(mask.flatten().numpy()))


def _unpacked(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    import torch

    bits = np.unpackbits(mask.numpy(), count=math.prod(shape))
    return torch.from_numpy(bits).bool().view(shape)
