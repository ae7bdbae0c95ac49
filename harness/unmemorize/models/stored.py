"""What kinds of numbers a folder's weight files hold, from their heads: no weight is read."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class StoredWeight(NamedTuple):
    """A tensor in a file, and what is wrong with it as a weight."""

    file: str
    name: str
    kind: str
    """What it holds, in words: `integers (I32)`, `sparse tensors`."""


def odd_weights(folder: Path) -> Iterator[StoredWeight]:
    """Yield the weights that are no plain floats: loading would round them, or end in an error of torch's.

    Files that cannot be read are left to the loading, which says what is wrong with them; masks and positions, which
    old files hold beside the weights, are not called `weight`.
    """
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        yield from (StoredWeight(path.name, *said) for said in _in_safetensors(path))
    for path in [] if files else sorted(folder.glob("*.bin")):
        yield from (StoredWeight(path.name, *said) for said in _in_torch_file(path))


def _in_safetensors(path: Path) -> Iterator[tuple[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            kinds = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return
    for name, kind in kinds.items():
        if name.endswith("weight") and "F" not in kind:  # F32, BF16, F8_E4M3
            yield name, f"{'truth values' if kind == 'BOOL' else 'integers'} ({kind})"


def _in_torch_file(path: Path) -> Iterator[tuple[str, str]]:
    import torch

    try:
        if not zipfile.is_zipfile(path):  # an old file is read as a whole
            return
        state: Any = torch.load(path, map_location="meta", weights_only=True)
    except Exception:  # whatever torch raises at what is no such file
        return
    for name, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, torch.Tensor) and str(name).endswith("weight"):
            if value.layout != torch.strided:
                yield str(name), f"sparse tensors ({value.layout})"
            elif not value.dtype.is_floating_point:
                yield str(name), f"{_WORDS.get(str(value.dtype), 'integers')} ({value.dtype})"


_WORDS = {"torch.bool": "truth values", "torch.complex64": "complex numbers", "torch.complex128": "complex numbers"}
