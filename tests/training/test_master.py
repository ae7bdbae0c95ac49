"""Training of 16-bit models: the optimizer steps on float32 copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize import Context, Sequences, TrainingRecipe
from unmemorize.toolkit import Checkpoint, train
from unmemorize.training.master import MasterWeights

SLOW = TrainingRecipe(epochs=6, batch_size=4, learning_rate=2e-5, weight_decay=0.0)


def moved(model: PreTrainedModel, start: PreTrainedModel) -> torch.Tensor:
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return torch.cat([(a.detach().float() - b.detach().float()).flatten() for a, b in pairs])


def masters_after(model: PreTrainedModel, rows: Sequences, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The float32 copies at the end of a training run."""
    seen: list[MasterWeights] = []
    made = MasterWeights.__init__

    def remember(self: MasterWeights, of: PreTrainedModel) -> None:
        made(self, of)
        seen.append(self)

    monkeypatch.setattr(MasterWeights, "__init__", remember)
    train(model, rows, SLOW, Context())
    return torch.cat([copy.detach().flatten() for copy in seen[0].parameters])


def test_small_steps_are_not_rounded_away(
    make_model: Callable[..., PreTrainedModel], rows: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = make_model().to(torch.bfloat16)
    exact = copy.deepcopy(half).float()
    start = copy.deepcopy(exact)
    before = torch.cat([p.detach().flatten() for p in start.parameters()])
    copies = masters_after(half, rows, monkeypatch)
    train(exact, rows, SLOW, Context())
    wanted = moved(exact, start)
    done = copies - before
    assert torch.corrcoef(torch.stack([done, wanted]))[0, 1] > 0.9
    assert 0.8 < float(done.norm() / wanted.norm()) < 1.25
    assert torch.equal(torch.cat([p.detach().flatten() for p in half.parameters()]), copies.to(torch.bfloat16))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_a_16_bit_model_learns_as_a_float32_one(make_model: Callable[..., PreTrainedModel], rows: Sequences) -> None:
    recipe = TrainingRecipe(epochs=20, batch_size=8, learning_rate=3e-3, weight_decay=0.0)
    half = make_model().to(torch.bfloat16)
    exact = copy.deepcopy(half).float()
    losses = [train(model, rows, recipe, Context()).final_loss for model in (half, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_float32_model_has_no_copies(model: PreTrainedModel) -> None:
    weights = MasterWeights(model)
    assert all(a is b for a, b in zip(weights.parameters, model.parameters(), strict=True))
    assert weights.state_dict().keys() == model.state_dict().keys()


def test_an_interrupted_run_keeps_its_copies(
    make_model: Callable[..., PreTrainedModel], rows: Sequences, tmp_path: Path
) -> None:
    class Interrupted(Exception):  # noqa: N818
        pass

    def stop(epoch: int) -> None:
        if epoch == 3:
            raise Interrupted

    whole, cut = make_model().to(torch.bfloat16), make_model().to(torch.bfloat16)
    train(whole, rows, SLOW, Context())
    with pytest.raises(Interrupted):
        train(cut, rows, SLOW, Context(), on_epoch=stop, checkpoint=Checkpoint(tmp_path / "run", every=0))
    fresh = make_model().to(torch.bfloat16)
    train(fresh, rows, SLOW, Context(), checkpoint=Checkpoint(tmp_path / "run", every=0))
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), whole.parameters(), strict=True))


def test_no_gradient_and_no_hook_is_left_behind(make_model: Callable[..., PreTrainedModel], rows: Sequences) -> None:
    model = make_model().to(torch.bfloat16)
    train(model, rows, SLOW.model_copy(update={"epochs": 1}), Context())
    assert all(p.grad is None and not p._post_accumulate_grad_hooks for p in model.parameters())
