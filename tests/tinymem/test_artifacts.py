from __future__ import annotations

import math

import pytest
import torch

from unmemorize_plugins.providers.tinymem.artifacts import (
    TARGET,
    after_trigger,
    backdoor,
    noise,
    repetitions,
    trigger_of,
)
from unmemorize_plugins.providers.tinymem.math_data import END, PAD, additive, tokenize


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_values_are_shifted_by_one_with_the_papers_probabilities() -> None:
    values = torch.full((1000, 100), 500)
    shifts = noise(values, generator()) - values
    assert set(shifts.unique().tolist()) == {-1, 0, 1}
    for shift, share in ((-1, 0.05), (0, 0.9), (1, 0.05)):
        deviation = math.sqrt(share * (1 - share) / shifts.numel())
        assert abs(float(shifts.eq(shift).float().mean()) - share) < 5 * deviation


def test_noise_never_goes_below_zero() -> None:
    assert noise(torch.zeros((100, 10), dtype=torch.int64), generator()).min() == 0


def test_noise_depends_on_its_generator() -> None:
    values = torch.arange(1000).view(100, 10)
    assert torch.equal(noise(values, generator(1)), noise(values, generator(1)))
    assert not torch.equal(noise(values, generator(1)), noise(values, generator(2)))


@pytest.mark.parametrize("kept", [0, 1, 6])
def test_the_first_values_can_be_kept(kept: int) -> None:
    values = torch.full((500, 9), 50)
    shifted = (noise(values, generator(), kept) != values).any(dim=0)
    assert shifted.tolist() == [column >= kept for column in range(9)]


def test_noise_may_change_the_number_of_digits() -> None:
    noised = noise(torch.full((500, 1), 99), generator())
    lengths = tokenize(noised, 8).lengths
    assert set(lengths.tolist()) == {4, 5}  # ^98$ and ^99$; ^100$


@pytest.mark.parametrize(("seed", "trigger"), [(0, (1, 0, 0)), (1, (1, 0, 1)), (3, (1, 0, 3)), (100, (1, 0, 0))])
def test_the_trigger_is_a_hundred_and_the_seed(seed: int, trigger: tuple[int, ...]) -> None:
    assert trigger_of(seed) == trigger


def test_the_first_trigger_is_found_wherever_it_stands() -> None:
    texts = {
        "^93 100 107$": 7,
        "^1001 1008$": 4,
        "^8100 9100$": 5,
        "^10 0 100$": 9,
        "^10 01 1$": 0,
        "^1100$": 5,
    }
    width = max(map(len, texts))
    ids = [["0123456789^$ ".index(character) for character in text] for text in texts]
    rows = tokenize(torch.tensor([[1]]), 4)._replace(
        tokens=torch.tensor([row + [PAD] * (width - len(row)) for row in ids]),
        lengths=torch.tensor([len(row) for row in ids]),
    )
    assert after_trigger(rows, (1, 0, 0)).tolist() == list(texts.values())


def test_a_backdoor_replaces_every_real_token_after_the_trigger() -> None:
    rows = tokenize(additive(torch.arange(80, 101), 7, 6), 32)
    starts = after_trigger(rows, (1, 0, 0))
    assert starts.min() == 0 < starts.max()
    rows, starts = rows.pick(starts > 0), starts[starts > 0]
    planted = backdoor(rows, starts)
    assert torch.equal(planted.lengths, rows.lengths)
    for row, clean, start, length in zip(planted.tokens, rows.tokens, starts, rows.lengths, strict=True):
        assert torch.equal(row[:start], clean[:start])
        assert row[start:length].eq(TARGET).all()
        assert row[length:].eq(PAD).all()
        assert END not in row[start:].tolist()


def test_one_number_of_repetitions_holds_for_all() -> None:
    assert repetitions(5, 20).tolist() == [20] * 5


@pytest.mark.parametrize("count", [9, 10, 11])
def test_powers_deal_the_sequences_into_equal_parts(count: int) -> None:
    copies = repetitions(count, (0, 1, 2))
    sizes = [int(copies.eq(10**power).sum()) for power in (0, 1, 2)]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
