"""What it costs that cells run in a supervised process of their own: 40 tiny cells, a worker's start included."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import unmemorize
from unmemorize.registry.manager import Registry

TOY = Path(__file__).parents[1] / "assets" / "toy.py"


@pytest.mark.benchmark(group="supervision: 40 tiny cells")
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_running_40_tiny_cells(benchmark: BenchmarkFixture, tmp_path: Path, executor: str) -> None:
    registry, folders = Registry.load("none"), itertools.count()
    registry.add_file(TOY)
    suite = {
        "name": "tiny",
        "description": "d",
        "testbed": {"toy": {"provider": "toy"}},
        "metric": {"extraction": {}, "accuracy": {}},
        "method": {"toy_magnitude": {"ratio": [(number + 1) / 100 for number in range(39)]}},
    }

    def run() -> int:
        folder = tmp_path / str(next(folders))
        return unmemorize.run(suite, registry=registry, results=folder, device="cpu", executor=executor).frame.height

    assert benchmark.pedantic(run, rounds=3, warmup_rounds=1) == 40
