"""How fast weights are chosen: each method beside the same result computed naively or as the released code does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import AutoModelForCausalLM, GPT2Config

from unmemorize import Context, Sequences, Testbed
from unmemorize.editing.selection import kth_largest, select_top
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import matrices_of
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning import subnet as learning
from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet
from unmemorize_plugins.methods.unlearning.weight.durable import Durable
from unmemorize_plugins.methods.unlearning.weight.greedy import Greedy
from unmemorize_plugins.methods.unlearning.weight.second_order import SecondOrder
from unmemorize_plugins.methods.unlearning.weight.subnet import Subnet

ROWS, LENGTH, WIDTH = 24, 16, 64


@pytest.fixture
def small(registry: Registry) -> Testbed:
    """A GPT-2 of 2 layers and 65,536 MLP weights, with random rows."""
    config = GPT2Config(vocab_size=40, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(1)
    forget, retain = (
        Sequences.from_rows(torch.randint(0, 40, (ROWS, LENGTH), generator=generator), prompt=4, first_id=first)
        for first in (0, 100)
    )
    return Testbed("small", model, forget=forget, retain=retain, mlps=known_mlps(model, registry))


def row_gradients(testbed: Testbed, weights: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    """Sum the gradients of single rows, one backward pass for each."""
    sums = [torch.zeros_like(weight) for weight in weights]
    for number in range(len(testbed.forget)):
        loss = sequence_losses(testbed.model, testbed.forget.select([number])).sum()
        for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            total.add_(gradient)
    return sums


@pytest.mark.benchmark(group="durable: the gradient of a forget set of 24 rows")
@pytest.mark.parametrize("way", ["batched", "row by row"])
def test_durable(benchmark: BenchmarkFixture, small: Testbed, way: str) -> None:
    weights = [matrix.weight for matrix in matrices_of(small.mlps).values()]
    ways: dict[str, Callable[[], object]] = {
        "batched": lambda: list(Durable().score(small, Context()).values()),
        "row by row": lambda: [total.abs() for total in row_gradients(small, weights)],
    }
    scores = benchmark(ways[way])
    assert torch.allclose(scores[0], row_gradients(small, weights)[0].abs(), rtol=1e-2, atol=1e-5)


@pytest.mark.benchmark(group="durable_aggregate: the top 5 % of 262,144 weights in 8 matrices")
@pytest.mark.parametrize("way", ["k-th value", "sets of indices"])
def test_durable_aggregate(benchmark: BenchmarkFixture, way: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {str(layer): torch.randn((128, 256), generator=generator).abs() for layer in range(8)}
    count = int(0.05 * 8 * 128 * 256)

    def by_sets() -> dict[str, set[tuple[int, int]]]:
        """As the released code does: every weight a Python object."""
        ranked = [
            (value, name, row, column)
            for name, values in scores.items()
            for row, line in enumerate(values.tolist())
            for column, value in enumerate(line)
        ]
        ranked.sort(reverse=True)
        chosen: dict[str, set[tuple[int, int]]] = {name: set() for name in scores}
        for _, name, row, column in ranked[:count]:
            chosen[name].add((row, column))
        return chosen

    if way == "k-th value":
        selection = benchmark(lambda: select_top(scores, 0.05, "global"))
        assert selection.chosen == count
    else:
        assert sum(map(len, benchmark(by_sets).values())) == count


@pytest.mark.benchmark(group="greedy: 40 of 65,536 weights")
@pytest.mark.parametrize("steps", [5, None])
def test_greedy(benchmark: BenchmarkFixture, small: Testbed, steps: int | None) -> None:
    method = Greedy(ratio=40 / 65536, steps=steps)
    masks = benchmark(lambda: method.masks(small, Context()))
    assert sum(int(mask.sum()) for mask in masks.values()) == 40


@pytest.mark.benchmark(group="second_order: the saliencies of 65,536 weights over 24 rows")
@pytest.mark.parametrize("way", ["one pass", "a backward pass for each row and matrix"])
def test_second_order(benchmark: BenchmarkFixture, small: Testbed, way: str) -> None:
    def by_rows() -> dict[str, torch.Tensor]:
        saliencies = {}
        for name, matrix in matrices_of(small.mlps).items():
            fisher = torch.zeros(matrix.weight.numel() // 32, 32, 32, dtype=torch.float64)
            for number in range(ROWS):
                loss = sequence_losses(small.model, small.forget.select([number])).sum()
                (gradient,) = torch.autograd.grad(loss, [matrix.weight])
                blocks = gradient.T.reshape(-1, 32).double()
                fisher += blocks[:, :, None] * blocks[:, None, :] / ROWS
            mean = fisher.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
            inverse = torch.linalg.inv(fisher + 1e-7 * mean * torch.eye(32)).diagonal(dim1=1, dim2=2)
            found = matrix.weight.detach().T.reshape(-1, 32) ** 2 / (2 * inverse)
            saliencies[name] = found.view(matrix.weight.T.shape).T.float()
        return saliencies

    once = SecondOrder(block=32)
    scores = benchmark((lambda: once.score(small, Context())) if way == "one pass" else by_rows)
    for name, expected in once.score(small, Context()).items():
        assert torch.allclose(scores[name], expected, rtol=2e-2, atol=1e-3 * expected.max())


@pytest.mark.benchmark(group="the threshold of a matrix of 512 x 2048")
@pytest.mark.parametrize("way", ["selection", "torch.kthvalue", "sort"])
def test_threshold(benchmark: BenchmarkFixture, way: str) -> None:
    values = torch.randn((512, 2048), generator=torch.Generator().manual_seed(0)).abs()
    k = values.numel() // 20
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "selection": lambda: kth_largest([values], k),
        "torch.kthvalue": lambda: values.flatten().kthvalue(values.numel() - k + 1).values,
        "sort": lambda: values.flatten().sort(descending=True).values[k - 1],
    }
    assert benchmark(ways[way]) == ways["sort"]()


@pytest.mark.benchmark(group="subnet, balanced_subnet: 5 epochs over 24 and 48 rows, 65,536 scores")
@pytest.mark.parametrize("kind", [Subnet, BalancedSubnet])
@pytest.mark.parametrize("way", ["threshold", "sort"])
def test_subnet(
    benchmark: BenchmarkFixture,
    small: Testbed,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    kind: type[Subnet | BalancedSubnet],
) -> None:
    method = kind(epochs=5, batch_size=8, ratio=0.1)
    expected = method.masks(small, Context())
    if way == "sort":
        by_sort = lambda parts, k: parts[0].flatten().sort(descending=True).values[k - 1]  # noqa: E731
        monkeypatch.setattr(learning, "kth_largest", by_sort)
    masks = benchmark(lambda: method.masks(small, Context()))
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
