from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences
from unmemorize.errors import CacheWarning
from unmemorize.training.checkpoint import Checkpoint, _write
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


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change what a checkpoint holds, as an own writer would: its digest fits."""
    with path.open("rb") as file:
        file.readline()
        state: dict[str, Any] = torch.load(file, weights_only=True)
    change(state)
    _write(state, path)
    return state


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
    assert list(path.parent.iterdir()) == [path]


def test_a_training_that_has_ended_is_not_repeated_until_its_model_is_kept(
    make_model: Make, rows: Sequences, tmp_path: Path
) -> None:
    checkpoint = Checkpoint(tmp_path / "run")
    whole, expected = finished(make_model, rows, checkpoint)
    again = make_model(dropout=0.2)
    again.register_forward_pre_hook(lambda *_: pytest.fail("a step was made again"))
    assert train(again, rows, RECIPE, Context(seed=3), checkpoint=checkpoint)[:4] == expected[:4]
    assert all(torch.equal(again.state_dict()[name], value) for name, value in whole.state_dict().items())
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


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
    state = rewritten(path, lambda state: state["position"].update(seconds=1000.0))
    assert checkpoint.restore(state["run"], model, optimizer).seconds == 1000.0
    assert 1000 < train(make_model(), rows, RECIPE, Context(seed=3), checkpoint=checkpoint).seconds < 1100


@pytest.mark.parametrize("change", ["seed", "recipe", "rows", "model"])
def test_the_state_of_another_run_is_not_used(
    make_model: Make, make_rows: Callable[..., Sequences], tmp_path: Path, change: str
) -> None:
    path, rows = tmp_path / "run", make_rows()
    run_until_killed(make_model(), rows, Checkpoint(path), 13)
    seed = 5 if change == "seed" else 3
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-4}) if change == "recipe" else RECIPE
    data = make_rows(seed=7) if change == "rows" else rows
    if change == "model":
        rewritten(path, lambda state: state.update(run=state["run"][:-32] + "0" * 32))
    fresh, resumed = make_model(), make_model()
    train(fresh, data, recipe, Context(seed=seed))
    with pytest.warns(CacheWarning, match="belongs to another training"):
        train(resumed, data, recipe, Context(seed=seed), checkpoint=Checkpoint(path))
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in fresh.state_dict().items())


def flipped(content: bytes, share: float) -> bytes:
    at = int(share * len(content))
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"not a checkpoint",
    "first kilobyte": lambda whole: whole[:1000],
    "one byte short": lambda whole: whole[:-1],
    "one byte more": lambda whole: whole + b" ",
    "without its digest": lambda whole: whole[whole.index(b"\n") + 1 :],
    "another version": lambda whole: whole.replace(b"checkpoint 1", b"checkpoint 2", 1),
} | {f"bit at {share}": lambda whole, share=share: flipped(whole, share) for share in (0, 0.1, 0.3, 0.6, 0.9, 0.999)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_said_and_is_as_good_as_none(
    make_model: Make, rows: Sequences, tmp_path: Path, damage: str
) -> None:
    path, recipe = tmp_path / "run", RECIPE.model_copy(update={"epochs": 2})
    run_until_killed(make_model(), rows, Checkpoint(path), 7)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    model, untouched = make_model(), make_model()
    with pytest.warns(CacheWarning, match=r"run is damaged, or of another version \(.*\): training starts"):
        report = train(model, rows, recipe, Context(seed=3), checkpoint=Checkpoint(path))
    assert report.steps == 12
    train(untouched, rows, recipe, Context(seed=3))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in untouched.state_dict().items())


def test_a_place_that_cannot_be_written_costs_the_checkpoint_and_not_the_training(
    make_model: Make, rows: Sequences, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "run", tmp_path / "file" / "run"):
        with pytest.warns(CacheWarning) as caught:
            report = train(make_model(), rows, RECIPE, Context(seed=3), checkpoint=Checkpoint(path))
        assert report.steps == 24
        assert f"{path} cannot be written" in str(caught[-1].message)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "run"]


def test_nothing_but_tensors_and_plain_values_is_stored(make_model: Make, rows: Sequences, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run_until_killed(make_model(), rows, Checkpoint(path), 7)
    state = rewritten(path, lambda _: None)
    assert state["position"]["step"] == 6
    assert set(state) == {"run", "model", "optimizer", "position"}
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_it_is_due_after_its_seconds(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "a", every=0).due()
    assert not Checkpoint(tmp_path / "a", every=1000).due()
