"""`clean`, `extra` and `both` are ordinary training, with the testbed's recipe, on the sets that they name."""

from __future__ import annotations

import copy

import pytest
import torch
from naive import row_loss, rows_of

from unmemorize import Context, FineTuning, Testbed, UnmemorizeError
from unmemorize.errors import DeadlineExceeded
from unmemorize.testing import tiny_sequences
from unmemorize_plugins.methods.finetuning.both import Both
from unmemorize_plugins.methods.finetuning.clean import Clean
from unmemorize_plugins.methods.finetuning.extra import Extra

Rows = list[tuple[list[int], int]]

SETS = {Clean: ("clean",), Extra: ("extra",), Both: ("clean", "extra")}
each_method = pytest.mark.parametrize("method", SETS, ids=lambda method: method.name)


@pytest.fixture
def with_clean(testbed: Testbed) -> Testbed:
    testbed.clean = tiny_sequences(6, seed=21, first_id=0, shortest=15, longest=18)
    return testbed


def shown(testbed: Testbed, method: type[FineTuning]) -> Rows:
    return [row for name in SETS[method] for row in rows_of(getattr(testbed, name))]


@each_method
def test_one_step_is_one_step_of_descent_on_every_row_of_its_sets(
    with_clean: Testbed, method: type[FineTuning]
) -> None:
    # SGD: the first step of Adam is the sign of the gradient, which for the bias of the keys is rounding noise.
    other = copy.deepcopy(with_clean.model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.1)
    rows = [row for row, _ in shown(with_clean, method)]
    total = sum(row_loss(other, row) * (len(row) - 1) for row in rows) / sum(len(row) - 1 for row in rows)
    total.backward()
    optimizer.step()
    context = Context()
    method(epochs=1, batch_size=len(rows), learning_rate=0.1, optimizer="SGD").apply(with_clean, context)
    for (name, mine), theirs in zip(with_clean.model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), atol=1e-5, rtol=0, msg=name)
    assert context.report.seconds["train"] > 0
    assert context.report.notes["steps"] == 1


@each_method
def test_a_testbed_without_one_of_its_sets_is_skipped_with_the_reason(
    with_clean: Testbed, method: type[FineTuning]
) -> None:
    assert method().supports(with_clean) is None
    for name in reversed(SETS[method]):
        setattr(with_clean, name, None)
        assert method().supports(with_clean) == f"it needs the {name} set, and this testbed has none"


@each_method
def test_it_learns_its_rows_and_the_curve_has_a_point_for_each_epoch(
    with_clean: Testbed, method: type[FineTuning]
) -> None:
    rows = shown(with_clean, method)
    before = [float(row_loss(with_clean.model, row).detach()) for row, _ in rows]
    measured: list[int] = []
    context = Context(measure=lambda model: measured.append(1) or {"x": 1.0})
    method(epochs=10, learning_rate=3e-3).apply(with_clean, context)
    after = [float(row_loss(with_clean.model, row).detach()) for row, _ in rows]
    assert all(now < then for now, then in zip(after, before, strict=True))
    assert [point["epoch"] for point in context.report.curve] == list(range(1, 11))
    assert len(measured) == 10


def test_the_union_has_every_row_of_either_set_once(with_clean: Testbed) -> None:
    union = Both().sequences(with_clean)
    assert rows_of(union) == shown(with_clean, Both)
    assert sorted(union.ids.tolist()) == sorted(with_clean.clean.ids.tolist() + with_clean.extra.ids.tolist())


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
    assert 0 < context.report.notes["final_loss"] < 10
