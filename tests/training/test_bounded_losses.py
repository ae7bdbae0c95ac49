"""Losses of large vocabularies: some logits at a time, the same losses and gradients."""

from __future__ import annotations

import pytest
import torch

from unmemorize import Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize.testing.models import known_mlps
from unmemorize.training import losses
from unmemorize.training.losses import Tokens, sequence_losses, token_losses


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest, registry: Registry) -> Testbed:
    model = tiny_model(request.param)
    return tiny_testbed(model, known_mlps(model, registry))


@pytest.fixture
def seen(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that each pass of the head is about, when three at a time are allowed."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * 29)
    found: list[int] = []
    head = testbed.model.get_output_embeddings()
    head.register_forward_hook(lambda _, inputs, output: found.append(output.shape[:-1].numel()))
    return found


def state(testbed: Testbed, tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    values = sequence_losses(testbed.model, testbed.forget, tokens)
    (values * torch.arange(1, len(values) + 1)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in testbed.model.named_parameters() if p.grad is not None}
    testbed.model.zero_grad(set_to_none=True)
    return values.detach(), gradients


@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_losses_and_gradients_are_those_of_all_logits_at_once(
    testbed: Testbed, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, gradients = state(testbed, tokens)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * 29)
    found, streamed = state(testbed, tokens)
    assert torch.allclose(found, values, rtol=1e-5)
    assert streamed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(streamed[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max())), name


def test_no_more_logits_exist_than_allowed_and_none_of_prompts(testbed: Testbed, seen: list[int]) -> None:
    with torch.no_grad():
        sequence_losses(testbed.model, testbed.forget, "suffix")
    assert max(seen) == 3
    assert sum(seen) == int(testbed.forget.suffix().sum())
    seen.clear()
    with torch.no_grad():
        sequence_losses(testbed.model, testbed.forget)
    assert sum(seen) == int(testbed.forget.real()[:, 1:].sum())


def test_one_position_always_fits(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = token_losses(testbed.model, testbed.forget).values
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 1)
    assert torch.allclose(token_losses(testbed.model, testbed.forget).values, expected, rtol=1e-4, atol=1e-6)


def test_what_a_model_does_to_its_logits_is_done(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    model = testbed.model
    own = type(model).forward

    def capped(self: torch.nn.Module, *arguments: object, **named: object) -> object:
        result = own(self, *arguments, **named)
        result.logits = torch.tanh(result.logits / 5) * 5
        return result

    monkeypatch.setattr(type(model), "forward", capped)
    expected = token_losses(model, testbed.forget).values
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * 29)
    assert torch.allclose(token_losses(model, testbed.forget).values, expected, rtol=1e-4, atol=1e-6)


def test_rows_without_a_suffix_have_no_loss_and_do_no_harm(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 3 * 29)
    batch = testbed.forget.select([0, 1])
    batch.suffix_starts[:] = 60
    values = sequence_losses(testbed.model, batch, "suffix")
    values.sum().backward()
    assert values.tolist() == [0.0, 0.0]


def test_nothing_is_left_behind(testbed: Testbed, seen: list[int]) -> None:
    sequence_losses(testbed.model, testbed.forget).sum().backward()
    assert len(seen) > 1
    assert all("forward" not in module.__dict__ for module in testbed.model.modules())
