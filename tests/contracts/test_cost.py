"""The units of a cost: input tokens, and the sizes that formulas are written in."""

from __future__ import annotations

import torch

from unmemorize import Cost, Sequences
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model, tiny_testbed
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import Sizes, count_shuffled_tokens, count_tokens

ROWS = Sequences.from_rows([[5] * length for length in (4, 9, 6, 3, 2)], prompt=1)


def test_batches_are_fed_with_their_own_padding() -> None:
    assert count_tokens(ROWS, 2) == (2 * 8 + 2 * 5 + 1, 16)
    assert count_tokens(ROWS, 2, whole=True) == (2 * 9 + 2 * 6 + 2, 18)
    assert count_tokens(ROWS.select([]), 2) == (0, 0)


def test_shuffled_rows_may_stand_beside_the_longest() -> None:
    assert count_shuffled_tokens(3, ROWS.select([0]), None, ROWS) == 3 * 8
    assert count_shuffled_tokens(3, ROWS.select([])) == 0


def test_sizes_are_counted_on_the_model(registry: Registry) -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    size = Sizes.of(tiny_testbed(model, known_mlps(model, registry)))
    assert size[:5] == (2, 80, 16, 2 * 3 * 40 * 16, 40 * 16)
    assert size.weight_bytes == 2
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert Sizes.of(tiny_testbed(model, ()))[:5] == (0, 0, 0, 0, 0)


def test_a_cost_is_nothing_by_default() -> None:
    assert Cost() == Cost(forward_tokens=0, advice="")
