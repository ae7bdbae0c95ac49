"""`loss_truncation` keeps exactly the sequences under the quantile of recent losses."""

from __future__ import annotations

import pytest
import torch

from unmemorize import Context, Sequences, Testbed, TrainingRecipe, TrainingStep
from unmemorize.testing import tiny_model, tiny_sequences
from unmemorize.toolkit import token_losses, train
from unmemorize.training.losses import sequence_losses
from unmemorize_plugins.methods.regularizers.loss_truncation import LossTruncation


def step(testbed: Testbed, rows: list[int], number: int) -> TrainingStep:
    batch = testbed.retain.select(rows)
    losses = token_losses(testbed.model, batch)
    return TrainingStep(testbed.model, batch, losses.values, losses.mask, losses.row_means(), number, 0)


def exact_quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the two neighbours in sorted order."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def test_the_objective_is_the_mean_over_the_kept_sequences(testbed: Testbed) -> None:
    # No row comes twice and no quantile is one of the losses: rounding decides nothing.
    testbed.retain = tiny_sequences(20, seed=4)
    method = LossTruncation(dropped=0.3, warmup_steps=1, buffer=16)
    recent: list[float] = []
    dropped = 0
    with method.attach(testbed.model, testbed.mlps, torch.Generator()):
        for number, rows in enumerate(torch.arange(20).split([4, 5, 6, 5])):
            seen = step(testbed, rows.tolist(), number)
            objective = float(method.objective(seen).detach())
            losses = [
                float(sequence_losses(testbed.model, testbed.retain.select([row])).detach()) for row in rows.tolist()
            ]
            recent = (recent + losses)[-16:]
            limit = float("inf") if number < 1 else exact_quantile(recent, 0.7)
            kept = [i for i, loss in enumerate(losses) if loss <= limit]
            total = sum(float(seen.token_losses[i].detach().sum()) for i in kept)
            count = sum(int(seen.mask[i].sum()) for i in kept)
            assert abs(objective - total / count) < 1e-4, number
            dropped += len(rows) - len(kept)
    assert dropped > 0, "nothing was dropped: the test says nothing"


def test_dropped_sequences_get_no_gradient(testbed: Testbed) -> None:
    method = LossTruncation(dropped=0.5, warmup_steps=0, buffer=16)
    with method.attach(testbed.model, testbed.mlps, torch.Generator()):
        seen = step(testbed, [0, 1, 2, 3], 0)
        seen.token_losses.retain_grad()
        method.objective(seen).backward()
    hardest = int(seen.sequence_losses.argmax())
    easiest = int(seen.sequence_losses.argmin())
    assert (seen.token_losses.grad[hardest] == 0).all()
    assert (seen.token_losses.grad[easiest] != 0).any()


@pytest.mark.parametrize("testbed", ["gpt2"], indirect=True)  # it never looks at the model
def test_it_learns_less_of_unpredictable_rows_than_plain_training(testbed: Testbed) -> None:
    regular = [[3 + (start + i) % 7 for i in range(12)] for start in range(60)]
    noise = tiny_sequences(6, seed=8, shortest=12, longest=12)
    data = Sequences.concatenate([Sequences.from_rows(regular, prompt=4), noise])
    recipe = TrainingRecipe(epochs=40, batch_size=22, learning_rate=1e-2)
    kind = testbed.model.config.model_type
    plain, truncated = tiny_model(kind), tiny_model(kind)
    train(plain, data, recipe, Context())
    train(truncated, data, recipe, Context(), regularizer=LossTruncation(dropped=0.1, warmup_steps=20), mlps=())
    with torch.no_grad():
        assert sequence_losses(truncated, noise).mean() > sequence_losses(plain, noise).mean() + 0.2
        assert sequence_losses(truncated, data.select(range(60))).mean() < 0.5
