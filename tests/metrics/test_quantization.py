"""Rounding against the formula weight by weight, and the testbed's weights before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import DataError, Testbed
from unmemorize.evaluation import evaluate
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.quantization import Quantization, round_to_nearest, rounded


def by_formula(row: list[float], bits: int) -> list[float]:
    """One output channel."""
    scale = max(abs(weight) for weight in row) / (2 ** (bits - 1) - 1)
    return [0.0 if scale == 0 else round(weight / scale) * scale for weight in row]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("channels", [0, 1])
def test_each_output_channel_has_a_scale_of_its_own(bits: int, channels: int) -> None:
    weight = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(6)[:, None]
    weight = weight if channels == 0 else weight.T
    found = round_to_nearest(weight, bits, channels)
    rows = found if channels == 0 else found.T
    before = weight if channels == 0 else weight.T
    for row, original in zip(rows.tolist(), before.tolist(), strict=True):
        assert row == pytest.approx(by_formula(original, bits), abs=1e-6)
        assert len(set(row)) <= 2**bits - 1
    assert torch.allclose(round_to_nearest(found, bits, channels), found, atol=1e-6)  # once is enough


def changed_until_it_breaks(testbed: Testbed, before: dict[str, torch.Tensor]) -> set[str]:
    changed = set()
    with contextlib.suppress(RuntimeError), rounded(testbed, 4):
        after = testbed.model.state_dict()
        changed |= {name for name, value in after.items() if not torch.equal(value, before[name])}
        raise RuntimeError("half-way")
    return changed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrices_of_the_blocks_are_rounded_and_restored(architecture: Any, dtype: torch.dtype) -> None:
    testbed = tiny_testbed(tiny_model(architecture, dtype=dtype), ())
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    changed = changed_until_it_breaks(testbed, before)
    blocks = {
        name
        for name, value in before.items()
        if value.ndim == 2 and not any(word in name for word in ("embed", "wte", "wpe", "lm_head"))
    }
    assert changed == blocks
    assert all(torch.equal(value, before[name]) for name, value in testbed.model.state_dict().items())


def test_values_are_those_of_a_rounded_model(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = regurgitating("llama")
    found = measured(testbed, Quantization())
    expected = {}
    for bits in (8, 4):
        copy = regurgitating("llama")
        for name, module in copy.model.named_modules():
            if type(module).__name__ == "Linear" and name != "lm_head":
                rows = [by_formula(row, bits) for row in module.weight.tolist()]
                module.weight.data = torch.tensor(rows)
        expected[bits] = measured(copy, Extraction())["extraction@4+6", "forget", "all"].per_sequence
    for bits, hits in expected.items():
        assert found[f"quantization@4+6,int{bits}", "forget", "all"].per_sequence == hits
        assert found[f"quantization@4+6,int{bits}", "forget", "plain"].value == 100
    assert expected[4] != expected[8]


def test_edits_smaller_than_half_a_step_vanish_and_larger_ones_stay() -> None:
    weight = torch.tensor([[7.0, 3.0, -1.0]])
    assert torch.equal(round_to_nearest(weight + torch.tensor([[0.0, 0.3, -0.3]]), 4, 0), weight)
    assert not torch.equal(round_to_nearest(weight + torch.tensor([[0.0, 0.7, 0.0]]), 4, 0), weight)


def test_weights_that_are_not_in_memory_cannot_be_rounded() -> None:
    testbed = tiny_testbed(tiny_model("llama"), ())
    testbed.model.model.layers[1].mlp.to("meta")
    with pytest.raises(DataError, match=r"cannot round model.layers.1.mlp.*not in memory\n  exp(.|\n)*device_map"):
        evaluate(testbed, [Quantization()])
