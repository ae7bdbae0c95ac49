"""Edits as a file: written, read, and made again on a fresh copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unmemorize import DataError, apply_edits
from unmemorize.editing.edit_file import edits_of, read_edits, write_edits
from unmemorize.execution.reference import Reference
from unmemorize.testing import ARCHITECTURES, tiny_model


def zero_some(model: torch.nn.Module, share: float = 0.1) -> int:
    generator = torch.Generator().manual_seed(0)
    count = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "0." in name:
            mask = torch.rand(parameter.shape, generator=generator) < share
            parameter.data[mask] = 0
            count += int(mask.sum())
    return count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_repeats_the_edit_on_a_fresh_copy(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model, fresh = (tiny_model(architecture, dtype=dtype) for _ in range(2))
    reference = Reference(model)
    zeroed = zero_some(model)
    write_edits(edits_of(model, reference.original), tmp_path / "edits.safetensors")
    assert zeroed > 0
    assert apply_edits(fresh, tmp_path / "edits.safetensors") == zeroed
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_file_is_small(tmp_path: Path) -> None:
    model = torch.nn.Linear(500, 400, bias=False)
    reference = Reference(model)
    model.weight.data[::3] = 0
    write_edits(edits_of(model, reference.original), tmp_path / "edits")
    assert (tmp_path / "edits").stat().st_size < 500 * 400 / 8 + 500


def test_what_was_not_touched_is_not_in_it() -> None:
    model = tiny_model("gpt2")
    reference = Reference(model)
    model.transformer.h[1].mlp.c_fc.weight.data[2, 3] = 0
    edits = edits_of(model, reference.original)
    assert list(edits) == ["transformer.h.1.mlp.c_fc.weight"]
    assert (edits["transformer.h.1.mlp.c_fc.weight"].changed, edits["transformer.h.1.mlp.c_fc.weight"].zeroed) == (
        1,
        True,
    )


def test_a_trained_model_is_told_but_not_repeated(tmp_path: Path) -> None:
    model = tiny_model("llama")
    reference = Reference(model)
    for parameter in model.parameters():
        parameter.data += 0.01
    write_edits(edits_of(model, reference.original), tmp_path / "edits")
    edits = read_edits(tmp_path / "edits")
    assert sum(edit.changed for edit in edits.values()) == sum(p.numel() for p in model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match="new values"):
        apply_edits(model, edits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_model_is_refused_and_left_alone() -> None:
    model, other = tiny_model("gpt2"), tiny_model("llama")
    reference = Reference(model)
    zero_some(model)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(DataError, match="no such parameter"):
        apply_edits(other, edits_of(model, reference.original))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("no")
    for name in ("weights.safetensors", "text", "absent"):
        with pytest.raises(DataError, match="cannot be read as a file of edits"):
            read_edits(tmp_path / name)
