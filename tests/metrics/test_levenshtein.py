"""Levenshtein against the textbook recursion on what `generate` says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from unmemorize import Sequences, Testbed
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.levenshtein import Levenshtein


def edits(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if min(i, j) == 0:
            return max(i, j)
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        )

    return distance(len(one), len(other))


def said_by_hand(testbed: Testbed, prompt: list[int], count: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, testbed.model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return tuple(ids[0, len(prompt) :].tolist())


def test_strict_loose_and_mean(
    table_testbed: Callable[..., Testbed], successor: torch.Tensor, rows: Callable[..., Sequences], measured: Any
) -> None:
    # The model continues 0 1 with 2 3 4 5. Verbatim; one replaced; moved by one (an insertion and a deletion); nothing.
    forget = rows([0, 1, 2, 3, 4, 5], [0, 1, 2, 9, 4, 5], [0, 1, 9, 2, 3, 4], [0, 1, 9, 9, 9, 9])
    found = measured(table_testbed(successor, forget), Levenshtein())
    assert found["levenshtein@2+4", "forget", "all"].per_sequence == (100.0, 75.0, 50.0, 0.0)
    assert found["levenshtein_strict@2+4", "forget", "all"].per_sequence == (100.0, 0.0, 0.0, 0.0)
    assert found["levenshtein_loose@2+4", "forget", "all"].value == 50.0
    looser = measured(table_testbed(successor, forget), Levenshtein(similarity=0.5))
    assert looser["levenshtein_loose@2+4", "forget", "all"].value == 75.0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_the_distance_of_the_greedy_continuation(architecture: Any, measured: Any) -> None:
    testbed = tiny_testbed(tiny_model(architecture), ())
    value = measured(testbed, Levenshtein())["levenshtein@4+6", "forget", "all"]
    for row, length, alike in zip(testbed.forget.tokens, testbed.forget.lengths, value.per_sequence, strict=True):
        true = tuple(row[4 : min(10, int(length))].tolist())
        said = said_by_hand(testbed, row[:4].tolist(), len(true))
        assert alike == pytest.approx(100 * (1 - edits(said, true) / len(true)))


def test_strict_is_extraction(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = regurgitating()
    testbed.forget.tokens[2:4, 9] = 28
    found = measured(testbed, Levenshtein(), Extraction())
    strict, exact = (found[f"{name}@4+6", "forget", "all"] for name in ("levenshtein_strict", "extraction"))
    assert strict.per_sequence == exact.per_sequence
    assert 0 < exact.value < 100
