from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences
from unmemorize.training.checkpoint import Checkpoint, Position
from unmemorize.training.loop import TrainingReport, train

Make = Callable[..., PreTrainedModel]

RECIPE = TrainingRecipe(epochs=4, batch_size=4, learning_rate=3e-3, schedule="cosine", warmup_steps=3, pooled_batches=2)
STEPS_PER_EPOCH = 6


class Killed(Exception):  # noqa: N818
    """What ends a run at a chosen step."""


def run_until_killed(
    model: PreTrainedModel,
    rows: Sequences,
    checkpoint: Checkpoint,
    step: int,
    recipe: TrainingRecipe = RECIPE,
) -> None:
    """Train, but break off just before optimizer step `step` is made."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Killed

    handle = model.register_forward_pre_hook(count)
    with pytest.raises(Killed):
        train(model, rows, recipe, Context(seed=3), checkpoint=checkpoint)
    handle.remove()


def finished(
    make_model: Make, rows: Sequences, checkpoint: Checkpoint | None
) -> tuple[PreTrainedModel, TrainingReport]:
    model = make_model(dropout=0.2)
    return model, train(model, rows, RECIPE, Context(seed=3), checkpoint=checkpoint)


# After an epoch, in the middle of one (with a state saved at every step), and before anything was saved.
@pytest.mark.parametrize(("killed_at", "every"), [(6, 1e9), (10, 0.0), (10, 1e9), (2, 1e9), (23, 0.0)])
def test_a_killed_run_goes_on_to_the_same_bits(
    make_model: Make, rows: Sequences, tmp_path: Path, killed_at: int, every: float
) -> None:
    whole, expected = finished(make_model, rows, None)
    path = tmp_path / "deep" / "run.checkpoint"
    run_until_killed(make_model(dropout=0.2), rows, Checkpoint(path, every=every), killed_at)
    assert path.exists() == (killed_at >= STEPS_PER_EPOCH or every == 0)

    resumed, report = finished(make_model, rows, Checkpoint(path, every=every))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert report[:4] == expected[:4]
    assert list(path.parent.iterdir()) == []


def test_only_the_missing_steps_are_made(make_model: Make, rows: Sequences, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_until_killed(make_model(), rows, Checkpoint(path), 13)
    model = make_model()
    steps: list[int] = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    epochs: list[int] = []
    train(model, rows, RECIPE, Context(seed=3), checkpoint=Checkpoint(path), on_epoch=epochs.append)
    assert len(steps) == 24 - 12
    assert epochs == [3, 4]


def test_seconds_of_both_parts_count(make_model: Make, rows: Sequences, tmp_path: Path) -> None:
    path, model = tmp_path / "run", make_model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    checkpoint = Checkpoint(path)
    run_until_killed(model, rows, checkpoint, 7)
    state = torch.load(path, weights_only=True)
    state["position"]["seconds"] = 1000.0
    torch.save(state, path)
    assert checkpoint.restore(state["run"], model, optimizer).seconds == 1000.0
    assert 1000 < train(make_model(), rows, RECIPE, Context(seed=3), checkpoint=checkpoint).seconds < 1100


@pytest.mark.parametrize("change", ["seed", "recipe", "rows"])
def test_the_state_of_another_run_is_not_used(
    make_model: Make, make_rows: Callable[..., Sequences], tmp_path: Path, change: str
) -> None:
    path, rows = tmp_path / "run", make_rows()
    run_until_killed(make_model(), rows, Checkpoint(path), 13)
    seed = 5 if change == "seed" else 3
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-4}) if change == "recipe" else RECIPE
    data = make_rows(seed=7) if change == "rows" else rows
    fresh, resumed = make_model(), make_model()
    train(fresh, data, recipe, Context(seed=seed))
    train(resumed, data, recipe, Context(seed=seed), checkpoint=Checkpoint(path))
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_file_that_cannot_be_read_is_as_good_as_none(
    make_model: Make, rows: Sequences, tmp_path: Path, damage: bytes | None
) -> None:
    path = tmp_path / "run"
    run_until_killed(make_model(), rows, Checkpoint(path), 13)
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    assert Checkpoint(path).restore("any", model, optimizer) == Position()
    report = train(model, rows, RECIPE, Context(seed=3), checkpoint=Checkpoint(path))
    assert report.steps == 24
    assert not path.exists()


def test_nothing_but_tensors_and_plain_values_is_stored(make_model: Make, rows: Sequences, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_until_killed(make_model(), rows, Checkpoint(path), 7)
    state = torch.load(path, weights_only=True)
    assert state["position"]["step"] == 6
    assert set(state) == {"run", "model", "optimizer", "position"}
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_it_is_due_after_its_seconds(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "a", every=0).due()
    assert not Checkpoint(tmp_path / "a", every=1000).due()
