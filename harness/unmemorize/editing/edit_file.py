"""Which weights an edit changed, as a file: one bit per weight of every matrix that it touched."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from unmemorize.errors import DataError
from unmemorize.files.error_reasons import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

_FORMAT, _WITHOUT_DIGESTS = "2", "1"
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
    dtype: str = ""
    """Of its weights, e.g. `torch.float32`; files of version 1 do not say it."""
    result: str = ""
    """The digest of its weights after the edit, where there is a mask; likewise."""


class _Entry(NamedTuple):
    """What a file says of a parameter, beside its mask."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    changed: Annotated[int, Field(ge=1)]
    zeroed: bool
    dtype: str = ""
    result: str = ""


_ENTRIES = TypeAdapter(dict[str, _Entry])

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
            zeroed = not bool(now[differs].any())
            result = "" if mask is None else _digest(now)
            edits[name] = ChangedParameter(tuple(now.shape), changed, zeroed, mask, str(now.dtype), result)
        return edits


def write_edits(edits: Edits, path: Path) -> None:
    """Write edits as a safetensors file: a packed mask for each parameter, and the rest as JSON in its metadata."""
    from safetensors.torch import save_file

    entries = {name: _Entry(*edit[:3], edit.dtype, edit.result)._asdict() for name, edit in edits.items()}
    masks = {name: edit.mask for name, edit in edits.items() if edit.mask is not None}
    about = json.dumps(entries)
    save_file(masks, path, metadata={"format": _FORMAT, "edits": about, "digest": _digest_of_all(about, masks)})


def read_edits(path: str | Path) -> Edits:
    """Return the edits that `write_edits` wrote.

    Raises:
        DataError: there is no such file, it holds something else, is damaged, or is of a newer release.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            masks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise _unreadable(path, reason_of(error)) from error
    version, about = said.get("format"), said.get("edits")
    if version is None or about is None:
        raise _unreadable(path, "it holds no edits")
    if version not in (_FORMAT, _WITHOUT_DIGESTS):
        raise DataError(
            f"{path} is a file of edits of version {version}",
            expected=f"version {_WITHOUT_DIGESTS} or {_FORMAT}, which this release of unmemorize reads",
            fix="pip install --upgrade unmemorize",
        )
    if version == _FORMAT and said.get("digest") != _digest_of_all(about, masks):
        raise _unreadable(path, "its digest is of something else, so it is damaged")
    try:
        entries = _ENTRIES.validate_json(about, strict=True)
    except ValidationError as error:
        raise _unreadable(path, f"{error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from error
    edits = {name: ChangedParameter(*entry[:3], masks.pop(name, None), *entry[3:]) for name, entry in entries.items()}
    wrong = next((f"{name!r}: {why}" for name, edit in edits.items() if (why := _wrong_mask(edit))), None)
    if wrong or masks:
        raise _unreadable(path, wrong or f"it holds a mask of {next(iter(masks))!r} and says nothing of it")
    return edits


def _wrong_mask(edit: ChangedParameter) -> str | None:
    """Return what is wrong about a mask, by what the file says beside it."""
    import torch

    size = math.prod(edit.shape)
    if edit.changed > size:
        return f"{edit.changed} of its {size} weights are said to be changed"
    if edit.mask is None:
        return None if edit.changed > DENSE * size else "its mask is missing"
    if edit.mask.dtype != torch.uint8 or tuple(edit.mask.shape) != (-(-size // 8),):
        return f"its mask is {tuple(edit.mask.shape)} {edit.mask.dtype}, where ({-(-size // 8)},) uint8 was expected"
    marked = int(np.unpackbits(edit.mask.numpy()).sum())
    if marked != edit.changed or np.unpackbits(edit.mask.numpy()[-1:])[size % 8 or 8 :].any():
        return f"its mask marks {marked} weights, where {edit.changed} of {size} are said to be changed"
    return None


def _unreadable(path: str | Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be read as a file of edits: {why}",
        expected="`edits.safetensors` from a folder that `unmemorize mitigate` wrote",
        fix="name that file, or make it again with `unmemorize mitigate`",
    )


def apply_edits(model: nn.Module, edits: Edits | str | Path) -> int:
    """Set to zero, in place, what an edit set to zero in another copy of the same model; return how many weights.

    Args:
        model: a copy of the model that the edit was made of, in the same dtype; it may be compiled or wrapped.
        edits: the edits, or the file that holds them.

    Raises:
        DataError: the edit did more than set weights to zero, or the file is damaged; or the model is another, or has
            parameters that cannot be edited where they are (adapters, quantized weights). It is then as it was.
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
            parameters[name].masked_fill_(_mask(edit, parameters[name]), 0.0)
        return sum(edit.changed for edit in edits.values())


def _check_applicable(name: str, edit: ChangedParameter, parameter: Tensor | None) -> None:
    dtype = edit.dtype or str(getattr(parameter, "dtype", ""))
    if parameter is None or tuple(parameter.shape) != edit.shape or str(parameter.dtype) != dtype:
        there = "no such parameter" if parameter is None else f"one of {tuple(parameter.shape)} {parameter.dtype}"
        raise DataError(
            f"the edit is of a parameter {name!r} of {edit.shape} {edit.dtype}, and the model has {there}",
            expected="the model that the edit was made of, in the same dtype",
            fix=_BASE,
        )
    if edit.mask is None or not edit.zeroed:
        raise DataError(
            f"the edit gave weights of {name!r} new values, which a mask does not hold",
            expected="an edit that only sets weights to zero (neuron and weight unlearning)",
            fix="load the mitigated model itself",
        )
    if edit.result and _digest(parameter.masked_fill(_mask(edit, parameter), 0.0)) != edit.result:
        raise DataError(
            f"the weights of {name!r} are others than those that the edit was made of",
            expected="the model that the edit was made of: of another, this edit says nothing",
            fix=_BASE,
        )


_BASE = "load the base model that the model card (README.md) names; or load the mitigated model itself"


def _mask(edit: ChangedParameter, like: Tensor) -> Tensor:
    """Return the mask as bool, in the parameter's shape and on its device."""
    import torch

    assert edit.mask is not None
    bits = np.unpackbits(edit.mask.numpy(), count=math.prod(edit.shape))
    return torch.from_numpy(bits).bool().view(edit.shape).to(like.device)


def _digest(weights: Tensor) -> str:
    """Return the digest of weights, to which zeros of both signs are the same."""
    return hashlib.blake2b(_bytes(weights + 0.0), digest_size=16).hexdigest()


def _digest_of_all(about: str, masks: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    for name in sorted(masks):
        digest.update(f"\n{name} {tuple(masks[name].shape)} {masks[name].dtype}\n".encode())
        digest.update(_bytes(masks[name]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _packed(mask: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.packbits(mask.flatten().numpy()))
