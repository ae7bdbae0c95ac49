"""Exact memorization against counting by hand and by a pass for each prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Sequences
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize_plugins.metrics.exact_memorization import ExactMemorization


def test_each_suffix_token_counts_for_itself(
    table_testbed: Callable[..., Any], successor: torch.Tensor, rows: Callable[..., Sequences], measured: Any
) -> None:
    forget = rows([0, 5, 6, 7, 8, 9, 3], [0, 5, 6, 9, 0, 1], [0, 5, 1, 1, 1, 1], [4, 4, 5])
    value = measured(table_testbed(successor, forget), ExactMemorization())["exact_memorization@2+4", "forget", "all"]
    assert value.per_sequence == (100.0, 75.0, 0.0, 100.0)  # after 2 tokens: 6 7 8 9 | 6 - 0 1 | - - - - | 5
    assert value.value == pytest.approx(275 / 4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_a_pass_for_each_prefix_gives(architecture: Any, measured: Any, regurgitating: Any) -> None:
    testbed = regurgitating(architecture)
    testbed.forget.tokens[0, 6] = testbed.forget.tokens[1, 13] = 28
    value = measured(testbed, ExactMemorization(suffix=9))["exact_memorization@4+9", "forget", "all"]
    for row, share in zip(testbed.forget.tokens, value.per_sequence, strict=True):
        with torch.no_grad():
            said = [int(testbed.model(input_ids=row[None, :end]).logits[0, -1].argmax()) for end in range(4, 13)]
        assert share == pytest.approx(100 * sum(s == t for s, t in zip(said, row[4:13].tolist(), strict=True)) / 9)


def test_only_the_window_counts(measured: Any) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    short = measured(testbed, ExactMemorization(prompt=3, suffix=1))["exact_memorization@3+1", "forget", "all"]
    assert set(short.per_sequence) <= {0.0, 100.0}
