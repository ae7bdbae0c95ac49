"""Edits as a file: written, read, and made again on a fresh copy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unmemorize import DataError, apply_edits
from unmemorize.editing.edit_file import _check_applicable, edits_of, read_edits, write_edits
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


MASK = "transformer.h.0.mlp.c_fc.weight"


class Written(NamedTuple):
    """What a file of edits holds, to be written with a change."""

    model: torch.nn.Module
    masks: dict[str, torch.Tensor]
    entries: dict[str, Any]

    def write(self, path: Path, *, version: str = "1", about: str | None = None, **more: str) -> Path:
        """Write the file without a digest, as version 1 was: its contents alone must show what is wrong."""
        about = json.dumps(self.entries) if about is None else about
        save_file(self.masks, path, metadata={"format": version, "edits": about, **more})
        return path


@pytest.fixture
def written(tmp_path: Path) -> Written:
    model = tiny_model("gpt2")
    reference = Reference(model)
    zero_some(model)
    write_edits(edits_of(model, reference.original), tmp_path / "whole")
    with safe_open(tmp_path / "whole", "pt") as file:
        masks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return Written(model, masks, json.loads(file.metadata()["edits"]))


def refused(path: Path, said: str) -> None:
    """The file is refused in three parts, and the model is as it was."""
    model, untouched = tiny_model("gpt2"), tiny_model("gpt2")
    with pytest.raises(DataError, match=said) as caught:
        apply_edits(model, path)
    assert caught.value.expected
    assert caught.value.fix
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in untouched.state_dict().items())


@pytest.mark.faults
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.999])
def test_no_flipped_bit_is_applied(written: Written, tmp_path: Path, share: float) -> None:
    content = bytearray((tmp_path / "whole").read_bytes())
    content[int(share * len(content))] ^= 2
    (tmp_path / "flipped").write_bytes(content)
    refused(tmp_path / "flipped", "cannot be read as a file of edits")


DAMAGES: dict[str, tuple[Callable[[Written], object], str]] = {
    "mask cut short": (lambda w: w.masks.update({MASK: w.masks[MASK][:9].clone()}), r"its mask is \(9,\) torch.uint8"),
    "mask all ones": (lambda w: w.masks[MASK].fill_(255), "its mask marks 1024 weights"),
    "mask with one bit more": (lambda w: w.masks[MASK][3:4].bitwise_not_(), "its mask marks"),
    "mask missing": (lambda w: w.masks.pop(MASK), "its mask is missing"),
    "mask of float": (lambda w: w.masks.update({MASK: w.masks[MASK].float()}), "torch.float32, where"),
    "mask of two dimensions": (lambda w: w.masks.update({MASK: w.masks[MASK][None]}), r"its mask is \(1, 128\)"),
    "mask of nothing": (lambda w: w.masks.update(zzz=torch.zeros(4)), "a mask of 'zzz' and says nothing of it"),
    "count changed": (lambda w: w.entries[MASK].update(changed=1), "where 1 of 1024"),
    "count of none": (lambda w: w.entries[MASK].update(changed=0), "greater than or equal to 1"),
    "count negative": (lambda w: w.entries[MASK].update(changed=-3), "greater than or equal to 1"),
    "count a text": (lambda w: w.entries[MASK].update(changed="7"), "valid integer"),
    "count NaN": (lambda w: w.entries[MASK].update(changed=math.nan), "valid integer"),
    "count above the size": (lambda w: w.entries[MASK].update(changed=10**12), "of its 1024 weights are said"),
    "without a shape": (lambda w: w.entries[MASK].pop("shape"), "Field required"),
    "shape huge": (lambda w: w.entries[MASK].update(shape=[10**9, 10**9]), "where \\(125000000000000000,\\) uint8"),
    "shape negative": (lambda w: w.entries[MASK].update(shape=[-16, -64]), "greater than or equal to 0"),
    "shape a number": (lambda w: w.entries[MASK].update(shape=1024), "valid array"),
    "zeroed a text": (lambda w: w.entries[MASK].update(zeroed="yes"), "valid boolean"),
    "a setting more": (lambda w: w.entries[MASK].update(scale=2.0), "Extra inputs"),
    "entry a list": (lambda w: w.entries.update({MASK: [1]}), "cannot be read as a file of edits"),
    "another shape": (
        lambda w: w.entries[MASK].update(shape=[64, 16]),
        r"of \(64, 16\) torch.float32, and the model has one",
    ),
    "another name": (
        lambda w: [w.entries.update(x=w.entries.pop(MASK)), w.masks.update(x=w.masks.pop(MASK))],
        "no such",
    ),
    "another dtype": (lambda w: w.entries[MASK].update(dtype="torch.float16"), "torch.float16, and the model has one"),
    "other weights": (lambda w: w.entries[MASK].update(result="0" * 32), "are others than those that the edit"),
    "not zeroed": (lambda w: w.entries[MASK].update(zeroed=False), "new values, which a mask does not hold"),
}


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_contradicts_itself_or_the_model_is_refused(written: Written, tmp_path: Path, damage: str) -> None:
    DAMAGES[damage][0](written)
    refused(written.write(tmp_path / "damaged"), DAMAGES[damage][1])


@pytest.mark.faults
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"about": "[1]"}, "should be an object"),
        ({"about": "null"}, "should be an object"),
        ({"about": "{"}, "Invalid JSON"),
        ({"about": "[" * 100_000}, "Invalid JSON: recursion"),
        ({"version": "3"}, "of version 3"),
        ({"version": "2"}, "its digest is of something else"),
        ({"version": "2", "digest": "0" * 32}, "its digest is of something else"),
    ],
)
def test_a_file_of_another_version_or_of_other_json_is_refused(
    written: Written, tmp_path: Path, more: dict[str, str], said: str
) -> None:
    refused(written.write(tmp_path / "damaged", **more), said)


def test_a_file_of_version_1_is_read(written: Written, tmp_path: Path) -> None:
    for entry in written.entries.values():
        del entry["dtype"], entry["result"]
    model = tiny_model("gpt2")
    assert apply_edits(model, written.write(tmp_path / "old")) == sum(e["changed"] for e in written.entries.values())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in written.model.state_dict().items())


def test_an_edit_is_made_twice_but_not_on_a_model_of_other_weights_or_another_dtype(
    written: Written, tmp_path: Path
) -> None:
    model = tiny_model("gpt2")
    assert apply_edits(model, tmp_path / "whole") == apply_edits(model, tmp_path / "whole") > 0
    for other, said in ((tiny_model("gpt2", seed=1), "are others"), (tiny_model("gpt2", dtype=torch.float16), "dtype")):
        with pytest.raises(DataError, match=said) as caught:
            apply_edits(other, tmp_path / "whole")
        assert "base model that the model card" in caught.value.fix


def test_zeros_of_both_signs_are_the_same(tmp_path: Path) -> None:
    model, fresh = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)
    fresh.load_state_dict(model.state_dict())
    reference = Reference(model)
    model.weight.data[1] *= torch.zeros(8)
    assert model.weight[1].signbit().any()
    edits = edits_of(model, reference.original)
    _check_applicable("weight", edits["weight"], fresh.weight)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "text").write_text("no")
    (tmp_path / "folder").mkdir()
    torch.save({"a": torch.zeros(2)}, tmp_path / "edits.pt")
    np.savez(tmp_path / "edits.npz", a=np.zeros(2))
    (tmp_path / "bomb").write_bytes(b"\xff" * 7 + b"\x7f{}")
    for name in ("weights.safetensors", "text", "absent", "folder", "edits.pt", "edits.npz", "bomb", "a" * 300, "a\0b"):
        with pytest.raises(DataError, match="cannot be read as a file of edits"):
            read_edits(tmp_path / name)
