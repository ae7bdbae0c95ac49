"""Samples against the distribution that they are drawn from, and the best of them against the one greedy answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Context, Sequences, Testbed
from unmemorize_plugins.metrics.discoverable import SampledLogProbability
from unmemorize_plugins.metrics.sampling import GumbelNoise, Sampling


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, 3)])
def test_the_arg_max_after_a_draw_is_a_sample(temperature: float, top_k: int | None) -> None:
    logits = torch.tensor([1.0, 0.3, -0.2, 0.1, -1.5])
    draw = GumbelNoise(temperature, top_k, Context().generator("test"))
    drawn = draw(torch.zeros(20_000, 1), logits.repeat(20_000, 1)).argmax(-1)
    shares = drawn.bincount(minlength=5) / 20_000
    expected = SampledLogProbability(temperature, top_k)(logits.repeat(5, 1), torch.arange(5)).exp()
    assert torch.allclose(shares, expected, atol=0.015)
    assert (shares[expected == 0] == 0).all()


def uncertain(table_testbed: Callable[..., Testbed], rows: Callable[..., Sequences]) -> Testbed:
    """After any token: 0 with 0.4, 1 with 0.3, 2 with 0.3; greedy decoding only ever says 0."""
    table = torch.tensor([0.4, 0.3, 0.3]).log().repeat(3, 1)
    return table_testbed(table, rows([2, 2, 0, 0], [2, 2, 1, 2], [2, 2, 2, 1]), suffix=2)


def test_samples_find_what_greedy_decoding_does_not_say(
    table_testbed: Callable[..., Testbed], rows: Callable[..., Sequences], measured: Any
) -> None:
    testbed = uncertain(table_testbed, rows)
    metric = Sampling(samples=100, temperature=1.0, similarity=1.0)
    found = measured(testbed, metric)
    label = metric.label(testbed)
    assert label == "sampling@2+2,samples=100,temperature=1"
    assert found[label, "forget", "plain"].per_sequence == (100.0, 0.0, 0.0)
    assert found[label, "forget", "all"].per_sequence == (100.0, 100.0, 100.0)  # each missed with 0.91^100
    assert measured(testbed, metric)[label, "forget", "all"] == found[label, "forget", "all"]


def test_the_share_found_is_what_the_closed_form_says(
    table_testbed: Callable[..., Testbed], rows: Callable[..., Sequences], measured: Any
) -> None:
    testbed = uncertain(table_testbed, rows)
    testbed.forget = rows(*[[2, 2, 1, 2]] * 600)
    metric = Sampling(samples=4, temperature=1.0, similarity=1.0)
    value = measured(testbed, metric)[metric.label(testbed), "forget", "all"]
    assert value.value == pytest.approx(100 * (1 - (1 - 0.09) ** 4), abs=6)


def test_near_is_enough(table_testbed: Callable[..., Testbed], rows: Callable[..., Sequences], measured: Any) -> None:
    testbed = uncertain(table_testbed, rows)
    found = measured(testbed, Sampling(samples=1, temperature=0.01, similarity=0.5))  # cold: as good as greedy
    testbed.forget = rows([2, 2, 0, 1], [2, 2, 1, 1])
    found = measured(testbed, Sampling(samples=1, temperature=0.01, similarity=0.5))
    assert found["sampling@2+2,samples=1,temperature=0.01", "forget", "all"].per_sequence == (100.0, 0.0)
