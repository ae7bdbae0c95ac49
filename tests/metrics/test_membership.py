"""Membership attacks against counting pairs, and Min-K%++ against sums over the vocabulary one by one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import ConfigError, Sequences, Testbed
from unmemorize.evaluation import evaluate
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize_plugins.metrics.membership import Membership, auc, lowest_mean, token_scores

LOSS, MIN_K = "membership@loss", "membership@min-k++=20%"


def by_pairs(seen: list[float], unseen: list[float]) -> float:
    wins = sum((a > b) + 0.5 * (a == b) for a in seen for b in unseen)
    return 100 * wins / (len(seen) * len(unseen))


def test_the_auc_counts_pairs_and_ties_half() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        seen, unseen = (torch.randint(0, 6, (size,), generator=draw).double() for size in (7, 5))
        value = auc("forget", list(range(7)), seen, unseen, "x")
        assert value.value == pytest.approx(by_pairs(seen.tolist(), unseen.tolist()))
        assert value.per_sequence == pytest.approx([by_pairs([score], unseen.tolist()) for score in seen.tolist()])
        assert value.low <= value.value <= value.high


def test_the_interval_counts_both_samples() -> None:
    seen, unseen = torch.tensor([2.0, 4.0, 6.0, 8.0]).double(), torch.tensor([1.0, 3.0, 5.0, 7.0]).double()
    value = auc("forget", [0, 1, 2, 3], seen, unseen, "x")
    # Places 1/4 2/4 3/4 4/4 on both sides: variance 5/48 each, over 4 sequences each.
    half = 196 * math.sqrt(2 * (5 / 48) / 4)
    assert (value.value, value.low) == pytest.approx((62.5, 62.5 - half))
    assert value.high == min(100.0, 62.5 + half)


def by_definition(logits: torch.Tensor, target: int) -> float:
    shares = logits.double().softmax(-1).tolist()
    mean = sum(p * math.log(p) for p in shares)
    deviation = math.sqrt(sum(p * (math.log(p) - mean) ** 2 for p in shares))
    return (math.log(shares[target]) - mean) / deviation


def test_token_scores_are_normalized_over_the_vocabulary() -> None:
    logits = 3 * torch.randn(30, 11, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(30) % 11
    expected = [by_definition(row, int(target)) for row, target in zip(logits, targets, strict=True)]
    assert token_scores(logits, targets).tolist() == pytest.approx(expected, rel=1e-4)


def test_token_scores_are_finite_where_the_model_is_certain_or_forbidden() -> None:
    certain = torch.full((2, 5), -40.0)
    certain[:, 2] = 40.0
    forbidden = torch.zeros(2, 5)
    forbidden[:, 3] = -torch.inf
    scores = token_scores(torch.cat([certain, forbidden]), torch.tensor([2, 1, 3, 0]))
    assert scores.isfinite().all()
    assert scores[0] == pytest.approx(0.0, abs=1e-3)
    assert scores[1] < -100
    assert scores[2] < -100
    assert scores[3] == pytest.approx(0.0, abs=1e-3)  # all others are equally likely


def test_the_lowest_share_of_each_row() -> None:
    scores = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0], [9.0, 7.0, 0.0, 0.0, 0.0]])
    real = torch.tensor([[True] * 5, [True, True, False, False, False]])
    assert lowest_mean(scores, real, 0.4).tolist() == [1.5, 7.0]
    assert lowest_mean(scores, real, 0.01).tolist() == [1.0, 7.0]
    assert lowest_mean(scores, real, 1.0).tolist() == [3.0, 8.0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_attacks_are_what_single_rows_give(architecture: Any, measured: Any) -> None:
    testbed = tiny_testbed(tiny_model(architecture), ())
    found = measured(testbed, Membership())

    def scores(rows: Sequences) -> tuple[list[float], list[float]]:
        losses, lowest = [], []
        for tokens, length in zip(rows.tokens, rows.lengths.tolist(), strict=True):
            with torch.no_grad():
                logits = testbed.model(input_ids=tokens[None, :length]).logits[0, :-1]
            targets = tokens[1:length].tolist()
            losses.append(float(logits.double().log_softmax(-1)[range(length - 1), targets].mean()))
            each = sorted(by_definition(row, target) for row, target in zip(logits, targets, strict=True))
            count = max(1, int(0.2 * len(each)))
            lowest.append(sum(each[:count]) / count)
        return losses, lowest

    seen, unseen = scores(testbed.forget), scores(testbed.holdouts["one"])
    for label, one, other in zip((LOSS, MIN_K), seen, unseen, strict=True):
        assert found[label, "forget", "all"].value == pytest.approx(by_pairs(one, other))


def test_regurgitated_text_is_told_from_random_text(regurgitating: Callable[..., Testbed], measured: Any) -> None:
    testbed = regurgitating()
    found = measured(testbed, Membership())
    assert found[LOSS, "forget", "all"].value > 90
    testbed.forget = testbed.holdouts["one"]
    assert measured(testbed, Membership())[LOSS, "forget", "all"].value == pytest.approx(50)


def test_one_hold_out_or_all_of_them(measured: Any) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.holdouts = {"one": testbed.holdouts["one"], "two": testbed.forget}
    alone = measured(testbed, Membership(holdout="two"))
    assert alone[LOSS, "forget", "all"].value == pytest.approx(50)
    both = measured(testbed, Membership())[LOSS, "forget", "all"].value
    first = measured(testbed, Membership(holdout="one"))[LOSS, "forget", "all"].value
    assert both == pytest.approx((5 * first + 6 * 50) / 11)


def test_without_a_hold_out_nothing_is_known(measured: Any) -> None:
    testbed = dataclasses.replace(tiny_testbed(tiny_model("gpt2"), ()), holdouts={})
    assert all(math.isnan(value.value) and value.count == 0 for value in measured(testbed, Membership()).values())


def test_an_unknown_hold_out_names_near_ones() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    with pytest.raises(
        ConfigError, match=r"'ome' is no hold-out of testbed 'tiny'\n  expected: one of one\n  fix: write"
    ):
        evaluate(testbed, [Membership(holdout="ome")])
    with pytest.raises(ConfigError, match=r"this one has none\n  fix: give the testbed a hold-out"):
        evaluate(dataclasses.replace(testbed, holdouts={}), [Membership(holdout="one")])


def test_sequences_of_one_token_are_left_out(measured: Any) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.forget = Sequences.from_rows([[5], [5, 6, 7], [8]], prompt=1, pad_id=2)
    value = measured(testbed, Membership())[MIN_K, "forget", "all"]
    assert (value.count, value.ids) == (1, (1,))
