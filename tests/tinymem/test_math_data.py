from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize_plugins.providers.tinymem.math_data import (
    PAD,
    VOCABULARY,
    additive,
    longest,
    multiplicative,
    tokenize,
)


def by_hand(start: int, length: int, step: Callable[[int], int]) -> list[int]:
    values = [start]
    while len(values) < length:
        values.append(step(values[-1]))
    return values


STARTS = torch.tensor([1, 2, 9, 10, 99, 100, 993, 5000, 19999])


@pytest.mark.parametrize("constant", [1, 7, 250])
def test_additive_values_are_repeated_addition(constant: int) -> None:
    expected = [by_hand(start, 20, lambda value: value + constant) for start in STARTS.tolist()]
    assert additive(STARTS, constant, 20).tolist() == expected


@pytest.mark.parametrize("constant", [2, 7, 20133])
def test_multiplicative_values_are_repeated_multiplication(constant: int) -> None:
    expected = [by_hand(start, 20, lambda value: value * constant % 20134) for start in STARTS.tolist()]
    assert multiplicative(STARTS, constant, 20, 20134).tolist() == expected


def test_rows_are_written_one_character_per_token(read: Callable[[Any], str]) -> None:
    values = additive(STARTS, 7, 6)
    rows = tokenize(values, 40)
    for row, length, numbers in zip(rows.tokens, rows.lengths, values.tolist(), strict=True):
        text = "^" + " ".join(map(str, numbers)) + "$"
        assert read(row[:length]) == text
        assert row[length:].eq(PAD).all()
    assert rows.tokens.max() < VOCABULARY
    assert rows.tokens.shape == (len(STARTS), 40)


def test_zero_is_written_and_leading_zeros_are_not(read: Callable[[Any], str]) -> None:
    rows = tokenize(torch.tensor([[0, 5, 100], [10, 0, 0]]), 12)
    assert [read(row) for row in rows.tokens] == ["^0 5 100$___", "^10 0 0$____"]
    assert rows.lengths.tolist() == [9, 8]


def test_the_bound_on_the_length_is_reached_and_kept() -> None:
    values = torch.tensor([[999, 999, 999], [1, 2, 3]])
    assert tokenize(values, 20).lengths.max() == longest(999, 3)
