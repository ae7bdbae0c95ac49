"""Edits on every architecture: what is set to zero, what is counted, what is restored."""

from __future__ import annotations

import pytest
import torch

from unmemorize.editing.edits import gradients_of, matrices_of, zero_neurons, zero_weights
from unmemorize.execution.reference import Reference
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences
from unmemorize.testing.models import known_mlps
from unmemorize.unlearning.activations import neuron_activations


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_layout_names_parameters_of_the_state_dict(architecture: str, registry: Registry) -> None:
    model = tiny_model(architecture)
    state = model.state_dict()
    mlps = known_mlps(model, registry)
    assert [mlp.layer for mlp in mlps] == [0, 1]
    for name, matrix in matrices_of(mlps).items():
        assert state[name].data_ptr() == matrix.weight.data_ptr()
    for mlp in mlps:
        assert mlp.down.by_input().shape == (mlp.neurons, 16)
        assert mlp.up.by_input().shape == (16, mlp.neurons)


def test_removing_a_neuron_equals_setting_its_activation_to_zero(architecture: str, registry: Registry) -> None:
    model = tiny_model(architecture)
    mlps = known_mlps(model, registry)
    ids = tiny_sequences(3, seed=9).inputs()
    mask = torch.zeros(2, mlps[0].neurons, dtype=torch.bool)
    mask[0, 3] = mask[1, [0, 7]] = True

    def silence(layer: int, activations: torch.Tensor) -> torch.Tensor:
        return activations.masked_fill(mask[layer], 0.0)

    with torch.no_grad():
        with neuron_activations(mlps, silence):
            expected = model(input_ids=ids).logits
        whole = model(input_ids=ids).logits
        zero_neurons(mlps, mask)
        edited = model(input_ids=ids).logits
    assert torch.allclose(edited, expected, atol=1e-5)
    assert not torch.allclose(edited, whole, atol=1e-3)


def test_hooks_are_gone_after_an_exception(architecture: str, registry: Registry) -> None:
    model = tiny_model(architecture)
    mlps = known_mlps(model, registry)

    def broken(layer: int, activations: torch.Tensor) -> None:
        raise ValueError("inside a hook")

    with pytest.raises(ValueError, match="inside a hook"), neuron_activations(mlps, broken):
        model(input_ids=torch.tensor([[3, 4]]))
    assert all(not mlp.down.module._forward_pre_hooks for mlp in mlps)


def test_changes_are_counted_and_restored_exactly(architecture: str, registry: Registry) -> None:
    model = tiny_model(architecture)
    mlps = known_mlps(model, registry)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reference = Reference(model)
    assert reference.changes(model).edited == 0
    masks = {name: torch.zeros_like(m.weight, dtype=torch.bool) for name, m in matrices_of(mlps).items()}
    first = next(iter(masks))
    masks[first].view(-1)[:5] = True
    zero_weights(mlps, masks)
    assert reference.changes(model).edited == 5
    assert reference.changes(model).parameters == sum(p.numel() for p in model.parameters())
    reference.restore()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_nan_is_restored_too() -> None:
    model = tiny_model("gpt2")
    reference = Reference(model)
    next(model.parameters()).data.view(-1)[0] = torch.nan
    reference.restore()
    assert reference.changes(model).edited == 0


def test_only_the_wanted_weights_collect_gradients_and_flags_come_back() -> None:
    model = tiny_model("llama")
    parameters = dict(model.named_parameters())
    frozen, wanted = parameters["model.norm.weight"], parameters["model.layers.0.mlp.up_proj.weight"]
    frozen.requires_grad_(False)
    with gradients_of(model, [wanted]):
        model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()
        assert [name for name, p in parameters.items() if p.grad is not None] == ["model.layers.0.mlp.up_proj.weight"]
    assert not frozen.requires_grad
    assert wanted.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
