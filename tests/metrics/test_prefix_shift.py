"""Prefix shift against trying every shift with real decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Sequences, Testbed
from unmemorize.testing import ARCHITECTURES
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.prefix_shift import PrefixShift


def greedy(testbed: Testbed, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    for _ in range(count):
        with torch.no_grad():
            logits = testbed.model(input_ids=ids).logits[:, -1]
        for processor in testbed.decoding:
            logits = processor(ids, logits)
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[0, len(prompt) :].tolist()


def by_trying(testbed: Testbed, row: list[int], clean: list[int], most: int) -> bool:
    """The definition, shift by shift. `clean` gives the prompts; it is the row itself without an artifact."""
    k, s = testbed.window
    s = min(s, len(row) - k)
    shifts = [(0, end) for end in range(-most, most + 1)]
    shifts += [(begin, end) for begin in range(1, most + 1) for end in (0, begin)]
    for begin, end in shifts:
        prompt, true = clean[begin : k + end], row[k + end : k + end + s]
        tells = clean is row or true != clean[k + end : k + end + s]
        if prompt and len(true) == s and tells and greedy(testbed, prompt, s) == true:
            return True
    return False


def spoiled(testbed: Testbed) -> Testbed:
    """Some rows are regurgitated after other prompts only, some never."""
    tokens = testbed.forget.tokens
    tokens[1, 4] = tokens[2, 5] = tokens[3, 3] = tokens[4, 7] = tokens[5, 0] = 28
    testbed.window = testbed.window._replace(suffix=4)
    return testbed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("most", [1, 3])
def test_it_is_what_trying_every_shift_gives(
    architecture: Any, most: int, regurgitating: Callable[..., Testbed], measured: Any
) -> None:
    testbed = spoiled(regurgitating(architecture))
    value = measured(testbed, PrefixShift(shift=most))[f"prefix_shift@4+4,shift={most}", "forget", "all"]
    expected = [by_trying(testbed, row, row, most) for row in testbed.forget.tokens.tolist()]
    assert value.per_sequence == tuple(100.0 * hit for hit in expected)
    assert 0 < value.value < 100


def test_short_rows_are_tried_where_they_reach(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = spoiled(regurgitating())
    rows = [row[:length] for row, length in zip(testbed.forget.tokens.tolist(), (8, 9, 7, 10, 5, 14), strict=True)]
    testbed.forget = Sequences.from_rows(rows, prompt=4, pad_id=2)
    value = measured(testbed, PrefixShift(shift=2))["prefix_shift@4+4,shift=2", "forget", "all"]
    assert value.per_sequence == tuple(100.0 * by_trying(testbed, row, row, 2) for row in rows)


def test_with_a_decode_time_method_it_decodes(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = spoiled(regurgitating())
    forbidden = int(testbed.forget.tokens[0, 6])
    testbed.decoding = (lambda ids, scores: scores.index_fill(1, torch.tensor([forbidden]), -torch.inf),)
    value = measured(testbed, PrefixShift(shift=2))["prefix_shift@4+4,shift=2", "forget", "all"]
    assert value.per_sequence == tuple(
        100.0 * by_trying(testbed, row, row, 2) for row in testbed.forget.tokens.tolist()
    )


def test_prompts_of_artifacts_are_clean_ones(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = spoiled(regurgitating("llama"))
    noised = testbed.forget.tokens.tolist()
    clean = [[*row[:5], 3 + (row[5] - 2) % 26, *row[6:]] for row in noised]
    testbed.forget = Sequences.from_rows(noised, prompt=4, pad_id=2, clean_rows=clean)
    value = measured(testbed, PrefixShift(shift=2))["prefix_shift@4+4,shift=2", "forget", "all"]
    expected = [by_trying(testbed, *pair, 2) for pair in zip(noised, clean, strict=True)]
    assert value.per_sequence == tuple(100.0 * hit for hit in expected)
    assert 0 < value.value < 100


def test_an_anchored_suffix_stays_behind_its_trigger(
    table_testbed: Callable[..., Testbed], successor: torch.Tensor, rows: Callable[..., Sequences], measured: Any
) -> None:
    # The last token alone decides here: what would come back from other places says nothing about the trigger.
    forget = rows([0, 1, 2, 9, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7])
    anchored = dataclasses.replace(forget, suffix_starts=torch.tensor([3, 3]), anchored=True)
    found = measured(table_testbed(successor, anchored, suffix=3), PrefixShift(), Extraction())
    assert found["prefix_shift@2+3,shift=3", "forget", "all"].per_sequence == (0.0, 100.0)
    free = measured(table_testbed(successor, forget, suffix=3), PrefixShift(), Extraction())
    assert free["extraction@2+3", "forget", "all"].per_sequence == (0.0, 100.0)
    assert free["prefix_shift@2+3,shift=3", "forget", "all"].per_sequence == (100.0, 100.0)


def test_it_is_never_less_than_extraction(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    found = measured(spoiled(regurgitating()), PrefixShift(), Extraction())
    shifted, plain = (found[label, "forget", "all"] for label in ("prefix_shift@4+4,shift=3", "extraction@4+4"))
    assert all(one >= other for one, other in zip(shifted.per_sequence, plain.per_sequence, strict=True))
    assert shifted.value > plain.value
