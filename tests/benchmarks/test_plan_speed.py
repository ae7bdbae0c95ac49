from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.method import Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.evaluation.metric import Metric
from unmemorize.execution.plan import plan, split
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.suite import Suite, load_suite


class Settings(StrictConfig):
    ratio: float = 0.05
    epochs: int = 5
    scope: str = "layer"
    layers: tuple[int, ...] | None = None


class Toy(ModelProvider):
    name, Config = "toy", Settings

    def load(self, context: Any) -> Any: ...


class Regurgitated(Metric):
    name, kind, direction, range = "regurgitated", "memorization", "lower", (0.0, 100.0)

    def measure(self, evaluation: Any) -> Any: ...


class Right(Metric):
    name, kind, direction, range = "right", "utility", "higher", (0.0, 100.0)

    def measure(self, evaluation: Any) -> Any: ...


def _method(name: str) -> type[Method]:
    nothing = lambda self, testbed, context: None  # noqa: E731
    return type(name, (Method,), {"name": name, "stage": "unlearn", "Config": Settings, "apply": nothing})


def _suite(registry: Registry) -> Suite:
    methods = [_method(f"method_{number}") for number in range(20)]
    registry.add(
        SimpleNamespace(
            register_methods=hookimpl(lambda: methods),
            register_metrics=hookimpl(lambda: [Regurgitated, Right]),
            register_providers=hookimpl(lambda: [Toy]),
        )
    )
    grid = {"ratio": [0.01 * step for step in range(1, 6)], "epochs": [1, 10]}
    return load_suite(
        {
            "name": "large",
            "seeds": list(range(10)),
            "testbed": {"noise": {"provider": "toy", "epochs": [1, 2, 3, 4, 5]}},
            "method": {method.name: grid for method in methods},
            "metric": {"regurgitated": {}, "right": {}},
        },
        registry,
    )


def test_planning_ten_thousand_cells(benchmark: BenchmarkFixture) -> None:
    registry = Registry()
    suite = _suite(registry)
    cells = benchmark(lambda: plan(suite, registry))
    assert len(cells) == 5 * 10 * (1 + 20 * 10)
    assert len(split(cells, set()).to_run) == len({cell.key for cell in cells}) == len(cells)


def test_loading_a_suite_of_two_hundred_configurations(benchmark: BenchmarkFixture) -> None:
    suite = benchmark(lambda: _suite(Registry()))
    assert sum(len(entry.configs) for entry in suite.methods) == 200
