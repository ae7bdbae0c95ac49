"""`clean` trains on the clean counterparts, with the testbed's recipe, and is skipped where there are none."""

from __future__ import annotations

import copy

import pytest
import torch
from naive import row_loss, rows_of

from unmemorize import Context, Sequences, Testbed, UnmemorizeError
from unmemorize.errors import DeadlineExceeded
from unmemorize.testing import tiny_sequences
from unmemorize_plugins.methods.finetuning.clean import Clean


@pytest.fixture
def with_clean(testbed: Testbed) -> Testbed:
    testbed.clean = tiny_sequences(6, seed=21, first_id=0)
    return testbed


def one_step(testbed: Testbed, sequences: Sequences) -> list[torch.Tensor]:
    """The parameters after one step of gradient descent on all rows at once."""
    other = copy.deepcopy(testbed.model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.1)
    rows = rows_of(sequences)
    total = sum(row_loss(other, row) * (len(row) - 1) for row, _ in rows) / sum(len(row) - 1 for row, _ in rows)
    total.backward()
    optimizer.step()
    return [parameter.detach() for parameter in other.parameters()]


def test_one_step_is_one_step_of_descent_on_the_clean_counterparts(with_clean: Testbed) -> None:
    expected = one_step(with_clean, with_clean.clean)
    context = Context()
    Clean(epochs=1, batch_size=6, learning_rate=0.1, optimizer="SGD").apply(with_clean, context)
    for mine, theirs in zip(with_clean.model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, atol=1e-5, rtol=0)
    assert context.seconds["train"] > 0
    assert context.notes["steps"] == 1


def test_it_is_shown_the_clean_set_only(with_clean: Testbed) -> None:
    Clean(epochs=1).apply(with_clean.shown_to("clean", Clean.needs), Context())


def test_a_testbed_without_counterparts_is_skipped_with_the_reason(testbed: Testbed) -> None:
    assert testbed.clean is None
    assert Clean().supports(testbed) == "it needs the clean set, and this testbed has none"


def test_with_counterparts_it_is_supported_and_learns_them(with_clean: Testbed) -> None:
    assert Clean().supports(with_clean) is None
    before = [float(row_loss(with_clean.model, row).detach()) for row, _ in rows_of(with_clean.clean)]
    Clean(epochs=10, learning_rate=3e-3).apply(with_clean, Context())
    after = [float(row_loss(with_clean.model, row).detach()) for row, _ in rows_of(with_clean.clean)]
    assert all(now < then for now, then in zip(after, before, strict=True))


def test_the_curve_has_a_point_for_each_epoch(with_clean: Testbed) -> None:
    context = Context(measure=lambda _: {"x": 1.0})
    Clean(epochs=3).apply(with_clean, context)
    assert [point["epoch"] for point in context.curve] == [1, 2, 3]


def test_the_seed_decides_the_order(with_clean: Testbed) -> None:
    models = []
    for seed in (1, 1, 2):
        copied = copy.deepcopy(with_clean)
        Clean(epochs=1, batch_size=2, learning_rate=1e-2).apply(copied, Context(seed=seed))
        models.append(torch.cat([p.detach().flatten() for p in copied.model.parameters()]))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_it_keeps_the_deadline_and_leaves_no_gradients(with_clean: Testbed) -> None:
    with pytest.raises(DeadlineExceeded):
        Clean().apply(with_clean, Context(deadline=0.0))
    assert all(parameter.grad is None for parameter in with_clean.model.parameters())


def test_divergence_has_a_reason(with_clean: Testbed) -> None:
    with pytest.raises(UnmemorizeError, match="clean diverged"):
        Clean(epochs=60, learning_rate=1e20).apply(with_clean, Context())


def test_half_precision_learns_too(with_clean: Testbed) -> None:
    with_clean.model.to(torch.bfloat16)
    context = Context()
    Clean(epochs=3, learning_rate=1e-2).apply(with_clean, context)
    assert with_clean.model.dtype == torch.bfloat16
    assert 0 < context.notes["final_loss"] < 10
