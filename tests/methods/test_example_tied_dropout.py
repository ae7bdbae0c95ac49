"""`example_tied_dropout` shows every example the common neurons and its own, and leaves the common ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from naive import down_module
from torch import Tensor

from unmemorize import ConfigError, Context, PluginError, Sequences, Testbed, TrainingRecipe
from unmemorize.testing import tiny_sequences
from unmemorize.toolkit import train
from unmemorize.training.losses import sequence_losses
from unmemorize_plugins.methods.regularizers.example_tied_dropout import ExampleTiedDropout


@contextmanager
def entering_down(testbed: Testbed, layer: int) -> Iterator[list[Tensor]]:
    """What really enters `down`, after all pre-hooks."""
    seen: list[Tensor] = []
    module = down_module(testbed, layer)
    handle = module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().clone()))
    yield seen
    handle.remove()


def masks(testbed: Testbed, method: ExampleTiedDropout, batch: Sequences, layer: int = 0) -> Tensor:
    """(B, m) bool: which neurons each row sees in a training pass, with activations that are never 0 by themselves."""
    module = down_module(testbed, layer)
    ones = module.register_forward_pre_hook(lambda _, inputs: (torch.ones_like(inputs[0]),), prepend=True)
    with entering_down(testbed, layer) as seen, torch.no_grad():
        testbed.model.train()
        method.before_batch(batch)
        testbed.model(input_ids=batch.inputs())
        testbed.model.eval()
    ones.remove()
    assert ((seen[0] == 0) | (seen[0] == 1)).all()
    assert (seen[0] == seen[0][:, :1]).all(), "a row's neurons are the same at all of its positions"
    return seen[0][:, 0] == 1


def attached(testbed: Testbed, method: ExampleTiedDropout, seed: int = 0):
    return method.attach(testbed.model, testbed.mlps, torch.Generator().manual_seed(seed))


def common(testbed: Testbed, share: float) -> int:
    return round(share * testbed.mlps[0].neurons)


def many(count: int, first_id: int = 0) -> Sequences:
    return tiny_sequences(count, seed=9, first_id=first_id)


def test_each_example_sees_the_common_neurons_and_its_share_of_the_others(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_fixed=0.25, p_mem=0.2)
    with attached(testbed, method):
        seen = masks(testbed, method, many(600))
    split = common(testbed, 0.25)
    assert seen[:, :split].all()
    own = seen[:, split:].float()
    count = own.numel()
    assert abs(float(own.mean()) - 0.2) < 5 * (0.16 / count) ** 0.5
    assert float((own.mean(0) - 0.2).abs().max()) < 5 * (0.16 / 600) ** 0.5, "no neuron is favoured"
    assert len({tuple(row) for row in own.tolist()}) > 550, "examples have neurons of their own"


def test_neurons_of_two_examples_and_of_two_layers_are_independent(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_fixed=0.2, p_mem=0.5)
    with attached(testbed, method):
        first, second = masks(testbed, method, many(400)), masks(testbed, method, many(400), layer=1)
    split = common(testbed, 0.2)
    first, second = first[:, split:].float() - 0.5, second[:, split:].float() - 0.5
    bound = 5 * 0.25 / first.numel() ** 0.5
    assert abs(float((first * second).mean())) < bound
    assert abs(float((first[:-1] * first[1:]).mean())) < bound
    assert abs(float((first[:, :-1] * first[:, 1:]).mean())) < bound


def test_rows_with_one_id_see_one_mask_wherever_they_stand(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_mem=0.3)
    rows = many(8)
    with attached(testbed, method):
        alone = masks(testbed, method, rows)
        mixed = masks(testbed, method, rows.select([5, 0, 5, 7, 0]))
    assert torch.equal(mixed, alone[[5, 0, 5, 7, 0]])
    assert not torch.equal(alone[5], alone[0])


def test_large_ids_are_told_apart(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_mem=0.5)
    with attached(testbed, method):
        low, high = masks(testbed, method, many(4)), masks(testbed, method, many(4, first_id=2**32))
        highest = masks(testbed, method, many(4, first_id=2**62))
    assert not any(torch.equal(low[i], high[i]) or torch.equal(low[i], highest[i]) for i in range(4))


def test_the_seed_decides_the_masks(testbed: Testbed) -> None:
    method, seen = ExampleTiedDropout(p_mem=0.3), []
    for seed in (1, 1, 2):
        with attached(testbed, method, seed):
            seen.append(masks(testbed, method, many(5)))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_masks_cut_gradients(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_fixed=0.2, p_mem=0.1)
    one = many(1)
    with attached(testbed, method):
        seen = masks(testbed, method, one)[0]
        testbed.model.train()
        method.before_batch(one)
        sequence_losses(testbed.model, one).sum().backward()
    down = testbed.mlps[0].down
    gradient = down.weight.grad if down.stores_input_first else down.weight.grad.T
    assert (gradient[~seen] == 0).all()
    assert (gradient[seen] != 0).any(dim=1).float().mean() > 0.3  # a ReLU may be closed


def test_at_evaluation_the_common_neurons_are_scaled_up_and_the_others_off(testbed: Testbed) -> None:
    method = ExampleTiedDropout(p_fixed=0.25, p_mem=0.1)
    rows = many(3)
    with torch.no_grad(), entering_down(testbed, 0) as plain:
        testbed.model(input_ids=rows.inputs())
    with torch.no_grad(), attached(testbed, method), entering_down(testbed, 0) as dropped:
        testbed.model(input_ids=rows.inputs())
    neurons, split = testbed.mlps[0].neurons, common(testbed, 0.25)
    on_in_training = split + 0.1 * (neurons - split)
    assert dropped[0][..., split:].eq(0).all()
    torch.testing.assert_close(dropped[0][..., :split], plain[0][..., :split] * on_in_training / split)


def test_what_is_measured_while_training_is_what_the_baked_model_gives(testbed: Testbed) -> None:
    measured: list[Tensor] = []

    def measure(_: object) -> dict[str, float]:
        with torch.no_grad():
            measured.append(testbed.model(input_ids=testbed.forget.inputs()).logits.clone())
        return {}

    context = Context(measure=measure)
    train(
        testbed.model, testbed.retain, TrainingRecipe(epochs=3, batch_size=4), context,
        regularizer=ExampleTiedDropout(), mlps=testbed.mlps, on_epoch=context.curve_point,
    )  # fmt: skip
    with torch.no_grad():
        baked = testbed.model(input_ids=testbed.forget.inputs()).logits
    assert len(measured) == 3
    torch.testing.assert_close(baked, measured[-1], atol=1e-4, rtol=1e-5)
    assert torch.equal(baked.argmax(-1), measured[-1].argmax(-1))
    assert not torch.allclose(baked, measured[0], atol=1e-3)


def test_baking_changes_down_only_and_leaves_an_ordinary_model(testbed: Testbed) -> None:
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    method = ExampleTiedDropout(p_fixed=0.25, p_mem=0.1)
    with torch.no_grad():
        method.finish(testbed.model, testbed.mlps)
    split = common(testbed, 0.25)
    downs = {mlp.down.name: mlp.down for mlp in testbed.mlps}
    for name, value in testbed.model.state_dict().items():
        if name not in downs:
            assert torch.equal(value, before[name]), name
            continue
        old = before[name] if downs[name].stores_input_first else before[name].T
        new = downs[name].by_input()
        assert new[split:].eq(0).all()
        neurons = len(new)
        torch.testing.assert_close(new[:split], old[:split] * (split + 0.1 * (neurons - split)) / split)
    assert not any(module._forward_pre_hooks for module in testbed.model.modules())


def test_bfloat16_masks_are_those_of_float32_and_its_model_is_near(testbed: Testbed) -> None:
    half = copy.deepcopy(testbed)
    half.model.to(torch.bfloat16)
    method = ExampleTiedDropout(p_mem=0.1)
    with attached(testbed, method):
        expected = masks(testbed, method, many(5))
        losses = sequence_losses(testbed.model, testbed.forget)
    with attached(half, method), torch.no_grad():
        assert torch.equal(masks(half, method, many(5)), expected)
        hooked = sequence_losses(half.model, half.forget)
    with torch.no_grad():
        method.finish(half.model, half.mlps)
        baked = sequence_losses(half.model, half.forget)
    assert half.model.dtype == torch.bfloat16
    torch.testing.assert_close(hooked, baked, atol=0.05, rtol=0.02)
    torch.testing.assert_close(hooked, losses.detach(), atol=0.2, rtol=0.05)


def test_hooks_go_also_after_an_exception(testbed: Testbed) -> None:
    def fail() -> None:
        with attached(testbed, ExampleTiedDropout()):
            assert any(module._forward_pre_hooks for module in testbed.model.modules())
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert not any(module._forward_pre_hooks for module in testbed.model.modules())


def test_an_unannounced_training_pass_is_an_error(testbed: Testbed) -> None:
    method = ExampleTiedDropout()
    with attached(testbed, method):
        method.before_batch(many(2))
        testbed.model.train()
        with pytest.raises(PluginError, match="3 rows in training mode, but 2 examples"):
            testbed.model(input_ids=many(3).inputs())
    testbed.model.eval()


@pytest.mark.parametrize("p_fixed", [0.001, 0.999])
def test_a_share_that_leaves_nothing_is_an_error(testbed: Testbed, p_fixed: float) -> None:
    with pytest.raises(ConfigError, match="p_fixed"), attached(testbed, ExampleTiedDropout(p_fixed=p_fixed)):
        pass


def test_planted_noise_is_regurgitated_less_than_after_plain_training(testbed: Testbed) -> None:
    """A regular language of many rows, and few rows of noise: the noise must go with its own neurons."""
    regular = [[3 + (start + i) % 7 for i in range(12)] for start in range(60)]
    noise = tiny_sequences(6, seed=8, shortest=12, longest=12, first_id=1000)
    data = Sequences.concatenate([Sequences.from_rows(regular, prompt=4), noise, noise])
    recipe = TrainingRecipe(epochs=40, batch_size=24, learning_rate=1e-2)
    plain, dropped = (copy.deepcopy((testbed.model, testbed.mlps)) for _ in range(2))
    train(plain[0], data, recipe, Context(), mlps=plain[1])
    method = ExampleTiedDropout(p_fixed=0.2, p_mem=0.1)
    train(dropped[0], data, recipe, Context(), regularizer=method, mlps=dropped[1])
    with torch.no_grad():
        of_plain, of_dropped = (sequence_losses(model, noise).mean() for model, _ in (plain, dropped))
        assert of_dropped > of_plain + 0.1
        assert sequence_losses(dropped[0], data.select(range(60))).mean() < 0.8
