"""`extra` trains on the extra set, with the testbed's recipe."""

from __future__ import annotations

import copy

import torch
from naive import row_loss, rows_of

from unmemorize import Context, Testbed
from unmemorize_plugins.methods.finetuning.extra import Extra


def test_one_step_is_one_step_of_adamw_on_the_extra_set(testbed: Testbed) -> None:
    other = copy.deepcopy(testbed.model)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1)
    rows = rows_of(testbed.extra)
    total = sum(row_loss(other, row) * (len(row) - 1) for row, _ in rows) / sum(len(row) - 1 for row, _ in rows)
    total.backward()
    optimizer.step()
    context = Context()
    Extra(epochs=1, batch_size=10, learning_rate=1e-3).apply(testbed, context)
    for (name, mine), theirs in zip(testbed.model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-4), name
    assert context.seconds["train"] > 0


def test_it_is_shown_the_extra_set_only(testbed: Testbed) -> None:
    Extra(epochs=1).apply(testbed.shown_to("extra", Extra.needs), Context())


def test_epochs_are_passes(testbed: Testbed) -> None:
    measured: list[int] = []
    context = Context(measure=lambda model: measured.append(1) or {"x": 1.0})
    Extra(epochs=3).apply(testbed, context)
    assert [point["epoch"] for point in context.curve] == [1, 2, 3]
    assert len(measured) == 3
