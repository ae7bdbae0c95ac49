"""Extraction strength against trying every prompt length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Sequences, Testbed
from unmemorize.testing import ARCHITECTURES
from unmemorize_plugins.metrics.extraction_strength import ExtractionStrength

KEY = ("extraction_strength", "forget", "all")


def test_the_last_wrong_token_decides(
    table_testbed: Callable[..., Testbed], successor: torch.Tensor, rows: Callable[..., Sequences], measured: Any
) -> None:
    forget = rows([1, 2, 3, 4], [1, 9, 3, 4], [1, 2, 3, 9], [1, 9, 0, 5, 6, 7, 8, 9], [7])
    value = measured(table_testbed(successor, forget), ExtractionStrength())[KEY]
    # Shortest prompts: 1 of 4; 3 of 4; all 4; 4 of 8. A single token says nothing.
    assert value.per_sequence == pytest.approx((75.0, 25.0, 0.0, 50.0))
    assert value.ids == (0, 1, 2, 3)


def by_trying(testbed: Testbed, row: list[int]) -> float:
    for shown in range(1, len(row)):
        ids = torch.tensor([row[:shown]])
        with torch.no_grad():
            while ids.shape[1] < len(row):
                ids = torch.cat([ids, testbed.model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        if ids[0].tolist() == row:
            return 100 * (1 - shown / len(row))
    return 0.0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_trying_every_prompt_gives(
    architecture: Any, regurgitating: Callable[..., Testbed], measured: Any
) -> None:
    testbed = regurgitating(architecture)
    tokens = testbed.forget.tokens
    tokens[0, 8] = tokens[1, 13] = 28
    testbed.forget = Sequences.from_rows([*tokens[:5].tolist(), tokens[5, :9].tolist()], prompt=4, pad_id=2)
    value = measured(testbed, ExtractionStrength())[KEY]
    rows = [row[:length] for row, length in zip(testbed.forget.tokens.tolist(), testbed.forget.lengths, strict=True)]
    assert value.per_sequence == pytest.approx([by_trying(testbed, row) for row in rows])
    assert max(value.per_sequence) > 60
