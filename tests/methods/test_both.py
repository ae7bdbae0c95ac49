"""`both` trains on the union of the clean counterparts and the extra data."""

from __future__ import annotations

import copy

import pytest
import torch
from naive import row_loss, rows_of

from unmemorize import Context, Testbed
from unmemorize.testing import tiny_sequences
from unmemorize_plugins.methods.finetuning.both import Both


@pytest.fixture
def with_clean(testbed: Testbed) -> Testbed:
    testbed.clean = tiny_sequences(6, seed=21, first_id=0, shortest=15, longest=18)
    return testbed


def test_one_step_is_one_step_of_descent_on_all_rows_of_both_sets(with_clean: Testbed) -> None:
    other = copy.deepcopy(with_clean.model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.1)
    rows = [row for row, _ in rows_of(with_clean.clean) + rows_of(with_clean.extra)]
    total = sum(row_loss(other, row) * (len(row) - 1) for row in rows) / sum(len(row) - 1 for row in rows)
    total.backward()
    optimizer.step()
    context = Context()
    Both(epochs=1, batch_size=16, learning_rate=0.1, optimizer="SGD").apply(with_clean, context)
    for mine, theirs in zip(with_clean.model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), atol=1e-5, rtol=0)
    assert context.notes["steps"] == 1


def test_every_row_of_either_set_is_there_once(with_clean: Testbed) -> None:
    union = Both().sequences(with_clean)
    expected = rows_of(with_clean.clean) + rows_of(with_clean.extra)
    assert rows_of(union) == expected
    assert sorted(union.ids.tolist()) == sorted(with_clean.clean.ids.tolist() + with_clean.extra.ids.tolist())


def test_it_is_shown_the_two_sets_only(with_clean: Testbed) -> None:
    Both(epochs=1).apply(with_clean.shown_to("both", Both.needs), Context())


def test_either_set_missing_is_the_reason_to_skip(with_clean: Testbed) -> None:
    assert Both().supports(with_clean) is None
    with_clean.extra = None
    assert Both().supports(with_clean) == "it needs the extra set, and this testbed has none"
    with_clean.clean = None
    assert Both().supports(with_clean) == "it needs the clean set, and this testbed has none"


def test_the_curve_has_a_point_for_each_epoch(with_clean: Testbed) -> None:
    context = Context(measure=lambda _: {"x": 1.0})
    Both(epochs=2).apply(with_clean, context)
    assert [point["epoch"] for point in context.curve] == [1, 2]
