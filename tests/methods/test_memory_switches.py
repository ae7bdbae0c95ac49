"""Recomputed blocks and offloaded scores save memory, and change nothing about what a method finds."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize import Context, Testbed, mitigate
from unmemorize.editing.checkpointing import checkpointed_blocks
from unmemorize.execution.reference import Reference
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps

REGISTRY = Registry.load("none")
FEW: dict[str, dict[str, Any]] = {
    "slimming": {"max_steps": 4},
    "hard_concrete": {"max_steps": 4},
    "greedy": {"steps": 3},
    "subnet": {"epochs": 2},
    "balanced_subnet": {"epochs": 2},
    "integrated_gradients": {"steps": 2},
    "extra": {"epochs": 1},
}
METHODS = [name for name in REGISTRY.names("method") if REGISTRY.method(name).stage in ("unlearn", "finetune")]


def weights_after(testbed: Testbed, name: str, *, saving: bool = False) -> dict[str, torch.Tensor]:
    """Let a method act on a copy of the testbed."""
    kind = REGISTRY.method(name)
    small = {"ratio": 0.1} if "ratio" in kind.Config.model_fields else {}
    model = copy.deepcopy(testbed.model)
    twin = dataclasses.replace(testbed, model=model, mlps=known_mlps(model, REGISTRY), clean=testbed.extra)
    with checkpointed_blocks(twin.mlps if saving else ()):
        kind(**small | FEW.get(name, {})).apply(twin, Context(checkpointing=saving, offload=saving))
    return {key: value.detach() for key, value in model.named_parameters()}


@pytest.mark.parametrize("name", METHODS)
def test_the_same_weights_are_edited_with_and_without(testbed: Testbed, name: str) -> None:
    expected = weights_after(testbed, name)
    found = weights_after(testbed, name, saving=True)
    assert close(found, expected)


def with_dropout(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5  # type: ignore[assignment]
    return model


def left_on(model: PreTrainedModel) -> PreTrainedModel:
    """Leave a model in the middle of a training with dropout, one block in eval mode and gradient checkpointing."""
    with_dropout(model).train()
    known_mlps(model, REGISTRY)[0].block.eval()
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    return model


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-6) for key in expected)


@pytest.mark.parametrize("name", [name for name in METHODS if REGISTRY.method(name).stage == "unlearn"])
def test_what_the_caller_left_on_changes_no_attribution(testbed: Testbed, name: str) -> None:
    expected = weights_after(testbed, name)
    left_on(testbed.model)
    assert close(weights_after(testbed, name), expected)


@pytest.mark.parametrize("name", ["extra", "greedy", "integrated_gradients", "zero_out"])
def test_what_the_caller_left_on_changes_nothing_in_mitigate_and_stays_on(testbed: Testbed, name: str) -> None:
    plain, changed = with_dropout(copy.deepcopy(testbed.model)), left_on(testbed.model)
    before = Reference(changed, values=False)
    settings = {"forget": testbed.forget, "retain": testbed.retain, "method": name} | FEW.get(name, {})
    expected, found = (mitigate(model, **settings).values for model in (plain, changed))
    assert [(value.before, value.after) for value in found] == [(value.before, value.after) for value in expected]
    assert close(dict(changed.named_parameters()), dict(plain.named_parameters()))
    assert not before.differences(changed).all()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("clean", "both")])
def test_bfloat16_models_can_be_edited_and_stay_what_they_are(testbed: Testbed, name: str) -> None:
    testbed.model.to(torch.bfloat16)
    before = {key: value.clone() for key, value in testbed.model.named_parameters()}
    after = weights_after(testbed, name)
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert {key: value.dtype for key, value in after.items()} == {key: value.dtype for key, value in before.items()}
    assert all(torch.isfinite(value).all() for value in after.values())
