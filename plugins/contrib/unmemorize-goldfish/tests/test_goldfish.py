"""`goldfish` drops what its definition says: a slow hash in plain integers decides, token by token."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from unmemorize import Context, Sequences, TrainingRecipe, TrainingStep
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences
from unmemorize.toolkit import token_losses, train
from unmemorize_goldfish import Goldfish, hash_below


def slow_mix(value: int) -> int:
    for _ in range(2):
        value = ((value >> 16) ^ value) * 0x45D9F3B % 2**32
    return (value >> 16) ^ value


def slow_dropped(row: list[int], place: int, context: int, seed: int, k: int) -> bool:
    """Whether the token at `place` is left out, from the `context` tokens before it."""
    if place < context:
        return False
    state = seed
    for token in row[place - context : place]:
        state = slow_mix(state ^ token)
    return state / 2**32 < 1 / k


def started(**settings: object) -> Goldfish:
    """A method in the midst of a training run."""
    method = Goldfish(**settings)
    with method.attach(None, (), torch.Generator().manual_seed(3)):  # type: ignore[arg-type]
        return method


def step_of(model: torch.nn.Module, batch: Sequences) -> TrainingStep:
    losses = token_losses(model, batch)
    return TrainingStep(model, batch, losses.values, losses.mask, losses.row_means(), number=0, epoch=0)


@pytest.mark.parametrize("context", [1, 2, 5, 13, 40])
def test_the_vectorized_hash_is_the_slow_one(context: int) -> None:
    tokens = torch.randint(0, 50_000, (7, 33), generator=torch.Generator().manual_seed(0))
    found = hash_below(tokens, context, 12345, 1 / 3)
    assert found.shape == (7, 32)
    for row, values in enumerate(tokens.tolist()):
        assert found[row].tolist() == [slow_dropped(values, place, context, 12345, 3) for place in range(1, 33)]


@pytest.mark.parametrize("k", [2, 4, 10])
def test_one_token_in_k_is_dropped(k: int) -> None:
    tokens = torch.randint(0, 1000, (200, 100), generator=torch.Generator().manual_seed(1))
    share = hash_below(tokens, 3, 7, 1 / k)[:, 2:].float().mean()
    assert abs(float(share) - 1 / k) < 0.02


def test_a_repeated_passage_loses_the_same_tokens_wherever_it_stands() -> None:
    generator = torch.Generator().manual_seed(2)
    passage = torch.randint(0, 99, (30,), generator=generator).tolist()
    rows = [torch.randint(0, 99, (before,), generator=generator).tolist() + passage for before in (0, 3, 11)]
    method = started(context=5, k=3)
    dropped = method.dropped(Sequences.from_rows(rows, prompt=1))
    inside = [dropped[row, before + 4 : before + 29].tolist() for row, before in enumerate((0, 3, 11))]
    assert inside[0] == inside[1] == inside[2]
    assert any(inside[0])
    assert not all(inside[0])


def test_seeds_drop_different_tokens() -> None:
    tokens = torch.randint(0, 99, (4, 50), generator=torch.Generator().manual_seed(2))
    assert not torch.equal(hash_below(tokens, 3, 1, 0.5), hash_below(tokens, 3, 2, 0.5))


def test_the_first_tokens_and_short_rows_are_kept() -> None:
    rows = Sequences.from_rows([[5, 6, 7], [5, 6]], prompt=1)
    assert not started(context=3, k=2).dropped(rows).any()
    assert not hash_below(torch.randint(0, 9, (50, 20)), 4, 0, 1.0)[:, :3].any()
    assert hash_below(torch.randint(0, 9, (50, 20)), 4, 0, 1.0)[:, 3:].all()


def test_the_static_mask_drops_every_kth_position() -> None:
    rows = Sequences.from_rows([list(range(10)), list(range(20, 30))], prompt=1)
    dropped = started(mask="static", k=3).dropped(rows)
    assert dropped.tolist() == [[False, False, True] * 3] * 2


def test_the_random_mask_is_another_each_time_and_the_same_for_a_seed() -> None:
    rows = tiny_sequences(40, seed=1)
    first, second = started(mask="random"), started(mask="random")
    masks = [first.dropped(rows), second.dropped(rows), first.dropped(rows)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert abs(float(masks[0].float().mean()) - 0.25) < 0.06


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_objective_is_the_mean_loss_of_the_kept_tokens(architecture: str) -> None:
    model = tiny_model(architecture)
    batch = tiny_sequences(5, seed=4)
    method = started(context=3, k=2)
    expected = []
    for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True):
        logits = model(input_ids=torch.tensor([row[:length]])).logits[0]
        for place in range(1, length):
            if not slow_dropped(row, place, 3, method._seed, 2):
                expected.append(-logits[place - 1].log_softmax(-1)[row[place]])
    torch.testing.assert_close(method.objective(step_of(model, batch)), torch.stack(expected).mean())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_dropped_token_is_not_learned(architecture: str) -> None:
    model = tiny_model(architecture)
    rows = tiny_sequences(16, seed=5, shortest=12, longest=12)
    method = Goldfish(context=3, k=3)
    train(model, rows, TrainingRecipe(epochs=60, batch_size=16, learning_rate=1e-2), Context(), regularizer=method)
    losses = token_losses(model, rows)
    dropped = method.dropped(rows)
    dropped[:, :2] = False
    known = ~dropped & (torch.arange(11) >= 2)  # the first tokens of a row can hardly be told from each other
    assert losses.values[known].mean() < 0.8
    assert losses.values[dropped].mean() > 3


def test_its_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        Goldfish(k=1)
    with pytest.raises(ValidationError):
        Goldfish(mask="hashed")
