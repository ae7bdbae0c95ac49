"""ROUGE-L against the textbook table, and against strings whose scores are known."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Sequences, Testbed
from unmemorize_plugins.metrics.approximate import Approximate, rouge_l


def longest_common(one: list[int], other: list[int]) -> int:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    draw = random.Random(0)
    for _ in range(200):
        one, other = ([draw.randrange(6) for _ in range(draw.randint(1, 12))] for _ in range(2))
        common = longest_common(one, other)
        precision, recall = common / len(one), common / len(other)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l(one, other) == pytest.approx(expected)


def test_the_sentence_of_the_paper_that_defines_it() -> None:
    words = ["police killed the gunman", "police kill the gunman", "the gunman kill police"]
    true, near, far = ([hash(word) for word in text.split()] for text in words)
    assert rouge_l(near, true) == 0.75  # Lin 2004: police - the gunman
    assert rouge_l(far, true) == 0.5  # the gunman


def test_shares_above_the_threshold_and_the_mean(
    table_testbed: Callable[..., Testbed], successor: torch.Tensor, rows: Callable[..., Sequences], measured: Any
) -> None:
    # The model continues 0 1 with 2 3 4 5; three of four tokens in common are 0.75, which is not above 0.75.
    forget = rows([0, 1, 2, 3, 4, 5], [0, 1, 9, 2, 3, 4], [0, 1, 9, 9, 9, 9])
    found = measured(table_testbed(successor, forget), Approximate())
    assert found["approximate@2+4", "forget", "all"].per_sequence == (100.0, 0.0, 0.0)
    assert found["approximate_mean@2+4", "forget", "all"].per_sequence == (100.0, 75.0, 0.0)
    lower = measured(table_testbed(successor, forget), Approximate(above=0.7))
    assert lower["approximate@2+4", "forget", "all"].value == pytest.approx(200 / 3)
