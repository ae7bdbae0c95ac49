"""Weight files that hold no floats: refused by name, before torch rounds them or stumbles over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unmemorize import DataError
from unmemorize.toolkit import ModelSource, open_model

pytestmark = pytest.mark.faults

KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "integers": (lambda value: value.to(torch.int32), r"integers \((torch.int32|I32)\)"),
    "truth values": (lambda value: value.bool(), r"truth values \((torch.bool|BOOL)\)"),
    "complex": (lambda value: value.to(torch.complex64), r"complex numbers \(torch.complex64\)"),
    "sparse": (lambda value: value.to_sparse(), r"sparse tensors \(torch.sparse_coo\)"),
}


def rewrite(folder: Path, kind: str, change: Callable[[Tensor], Tensor]) -> None:
    """Write the folder's weights again, the matrices of its first block changed."""
    from safetensors.torch import load_file

    whole = folder / "model.safetensors"
    state = load_file(whole)
    state = {name: change(value) if name.endswith("0.mlp.c_fc.weight") else value for name, value in state.items()}
    whole.unlink()
    if kind == "safetensors":
        save_file(state, whole, metadata={"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("file", "kind"), [("safetensors", "integers"), ("safetensors", "truth values"), *[("bin", kind) for kind in KINDS]]
)
def test_weights_that_are_no_floats_are_refused(folder: Path, file: str, kind: str) -> None:
    change, said = KINDS[kind]
    rewrite(folder, file, change)
    with pytest.raises(DataError, match=rf"holds {said} in place of weights: transformer.h.0.mlp.c_fc.weight in "):
        open_model(ModelSource(model=str(folder)))


@pytest.mark.parametrize("file", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_floats_of_every_width_are_taken_and_masks_beside_them(folder: Path, file: str, dtype: torch.dtype) -> None:
    rewrite(folder, file, lambda value: value.to(dtype))
    if file == "bin":
        state = torch.load(folder / "pytorch_model.bin", weights_only=True)
        mask = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
        torch.save(state | {"transformer.h.0.attn.bias": mask}, folder / "pytorch_model.bin")
    assert open_model(ModelSource(model=str(folder))).model.dtype == torch.float32


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"PK\x03\x04" + b"x" * 500, b"\x80\x02}."])
def test_damaged_files_are_left_to_the_loading(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"could not be loaded|lack"):
        open_model(ModelSource(model=str(folder)))
