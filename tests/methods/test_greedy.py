"""`greedy` equals its definition: one weight at a time, each gain from gradients of single rows."""

from __future__ import annotations

import pytest
import torch
from naive import matrix_weights, row_loss, rows_of

from unmemorize import Context, Sequences, Testbed
from unmemorize.toolkit import shuffled_rows
from unmemorize_plugins.methods.unlearning.weight.greedy import Greedy


def mean_loss(testbed: Testbed, rows: Sequences) -> torch.Tensor:
    return torch.stack([row_loss(testbed.model, row) for row, _ in rows_of(rows)]).mean()


def by_definition(testbed: Testbed, count: int, size: int, context: Context) -> list[tuple[str, int]]:
    """Remove `count` weights for good, each the best on its own batches; return them in order."""
    weights = matrix_weights(testbed)
    forget = shuffled_rows(testbed.forget, size, count, context.generator("greedy", "forget"))
    retain = shuffled_rows(testbed.retain, size, count, context.generator("greedy", "retain"))
    removed: list[tuple[str, int]] = []
    for lost, kept in zip(forget, retain, strict=True):
        objective = mean_loss(testbed, lost) - mean_loss(testbed, kept)
        gradients = dict(zip(weights, torch.autograd.grad(objective, list(weights.values())), strict=True))
        best, place, most = "", 0, 0.0
        for name, weight in weights.items():
            for at, gain in enumerate((-weight * gradients[name]).flatten().tolist()):
                if gain > most and (name, at) not in removed:
                    best, place, most = name, at, gain
        with torch.no_grad():
            weights[best].view(-1)[place] = 0.0
        removed.append((best, place))
    return removed


def units(testbed: Testbed) -> int:
    return sum(weight.numel() for weight in matrix_weights(testbed).values())


def test_the_sign_is_that_of_really_zeroing_single_weights(testbed: Testbed) -> None:
    method = Greedy()
    (objective,) = method.objectives(testbed, 1, Context())
    gains = method.gains(testbed, Context(), objective, 0)
    lost, kept = objective[0].rows, objective[1].rows
    assert sorted(lost.ids.tolist()) == testbed.forget.ids.tolist()
    assert len(kept) == len(lost)
    assert set(kept.ids.tolist()) <= set(testbed.retain.ids.tolist())
    weights = matrix_weights(testbed)
    for name, weight in weights.items():
        order = gains[name].flatten().argsort()
        for place in (order[0], order[-1]):  # the most harmful and the most useful removal
            with torch.no_grad():
                before = mean_loss(testbed, lost) - mean_loss(testbed, kept)
                value = weight.view(-1)[place].clone()
                weight.view(-1)[place] = 0.0
                rise = mean_loss(testbed, lost) - mean_loss(testbed, kept) - before
                weight.view(-1)[place] = value
            gain = gains[name].view(-1)[place]
            assert rise.sign() == gain.sign(), name
            assert rise == pytest.approx(gain.item(), rel=0.7, abs=2e-3), name


@pytest.mark.parametrize("size", [4, 32])
def test_one_weight_at_a_time_is_the_definition(testbed: Testbed, size: int) -> None:
    count = 12
    ratio = count / units(testbed)
    masks = Greedy(steps=None, ratio=ratio, batch_size=size).masks(testbed, Context(seed=3))
    whole = min(size, len(testbed.forget))
    removed = by_definition(testbed, count, whole, Context(seed=3))
    found = {(name, place) for name, mask in masks.items() for place in mask.flatten().nonzero().flatten().tolist()}
    assert found == set(removed)


def test_a_schedule_ends_as_near_to_one_at_a_time_as_other_batches_do(planted: Testbed) -> None:
    exact, other, scheduled = (
        Greedy(steps=steps, ratio=200 / units(planted)).masks(planted, Context(seed=seed))
        for steps, seed in ((None, 0), (None, 1), (50, 0))
    )
    of_other, of_scheduled = (
        sum(int((mask & exact[name]).sum()) for name, mask in masks.items()) for masks in (other, scheduled)
    )
    assert of_scheduled > 0.6 * 200  # by chance: less than one
    assert of_scheduled > of_other - 0.1 * 200
    (start, start_kept), *ends = (losses(planted, masks) for masks in ({}, exact, other, scheduled))
    rises = [end - start for end, _ in ends]
    assert min(rises) > 0.5 * max(rises) > 0
    assert all(abs(kept - start_kept) < 0.05 for _, kept in ends)


def losses(testbed: Testbed, masks: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Of the forget and the retain set, while the masked weights are zero."""
    with Kept(testbed), torch.no_grad():
        for name, mask in masks.items():
            matrix_weights(testbed)[name][mask] = 0.0
        return mean_loss(testbed, testbed.forget).item(), mean_loss(testbed, testbed.retain).item()


class Kept:
    """The model's state, restored at the end."""

    def __init__(self, testbed: Testbed) -> None:
        self.model = testbed.model

    def __enter__(self) -> None:
        self.state = {name: value.clone() for name, value in self.model.state_dict().items()}

    def __exit__(self, *_: object) -> None:
        self.model.load_state_dict(self.state)


def test_only_weights_with_a_gain_are_removed_and_the_rest_is_reported(testbed: Testbed) -> None:
    context = Context()
    masks = Greedy(ratio=1.0, steps=2).masks(testbed, context)
    removed = sum(int(mask.sum()) for mask in masks.values())
    assert 0.3 * units(testbed) < removed < 0.95 * units(testbed)
    assert context.report.notes["weights_without_gain"] == units(testbed) - removed


def test_the_weights_are_shared_out_evenly_and_no_step_is_empty() -> None:
    assert Greedy(ratio=0.1, steps=4).schedule(100) == [2, 5, 7, 10]
    assert Greedy(ratio=0.03, steps=50).schedule(100) == [1, 2, 3]
    assert Greedy(ratio=0.03, steps=None).schedule(100) == [1, 2, 3]


def test_bfloat16_gains_are_float32(testbed: Testbed) -> None:
    (objective,) = Greedy().objectives(testbed, 1, Context())
    exact = Greedy().gains(testbed, Context(), objective, 0)
    testbed.model.to(torch.bfloat16)
    for name, gain in Greedy().gains(testbed, Context(), objective, 0).items():
        assert gain.dtype == torch.float32
        assert torch.corrcoef(torch.stack([gain.flatten(), exact[name].flatten()]))[0, 1] > 0.98
