"""How long it takes to make the data: 20,000 sequences, and the whole of the paper's testbed."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from unmemorize import Context
from unmemorize_plugins.providers.tinymem import TinyMem
from unmemorize_plugins.providers.tinymem.math_data import additive, multiplicative, tokenize

STARTS = torch.arange(1, 20_001)


def test_20000_additive_sequences(benchmark: BenchmarkFixture) -> None:
    rows = benchmark(lambda: tokenize(additive(STARTS, 7, 20), 150))
    assert rows.tokens.shape == (20_000, 150)


def test_20000_multiplicative_sequences(benchmark: BenchmarkFixture) -> None:
    rows = benchmark(lambda: tokenize(multiplicative(STARTS, 7, 20, 20134), 150))
    assert rows.tokens.shape == (20_000, 150)


def test_20000_additive_sequences_one_by_one(benchmark: BenchmarkFixture) -> None:
    ids = {character: number for number, character in enumerate("0123456789^$ ")}

    def one_by_one() -> list[list[int]]:
        rows = []
        for start in range(1, 20_001):
            text = "^" + " ".join(str(start + 7 * step) for step in range(20)) + "$"
            row = [ids[character] for character in text]
            rows.append(row + [13] * (150 - len(row)))
        return rows

    rows = benchmark.pedantic(one_by_one, rounds=2)
    assert torch.equal(torch.tensor(rows), tokenize(additive(STARTS, 7, 20), 150).tokens)


@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
def test_all_sets_of_the_papers_testbed(benchmark: BenchmarkFixture, artifact: str) -> None:
    provider = TinyMem(size="paper", artifact=artifact)
    sets = benchmark.pedantic(lambda: provider.sets(Context()), rounds=3)
    assert len(sets.training) > 30_000
