"""A suite over a tiny random model, run with the plugin that a third party would write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unmemorize
from unmemorize.registry.manager import Registry

TOY = Path(__file__).parents[1] / "assets" / "toy.py"


@pytest.fixture
def toys(registry: Registry) -> Registry:
    registry.add_file(TOY)
    return registry


@pytest.fixture
def run_toys(toys: Registry, tmp_path: Path) -> Callable[..., unmemorize.Results]:
    """Run methods on the toy testbed; `run_toys({"durable": {}}, seeds=[0])`."""

    def run(methods: dict[str, Any], *, seeds: list[int] | None = None, **options: Any) -> unmemorize.Results:
        suite = {
            "name": "toys",
            "description": "tiny",
            "seeds": seeds or [0],
            "testbed": {"toy": {"provider": "toy", **options.pop("testbed", {})}},
            "metric": {"extraction": {}, "accuracy": {}, "perplexity": {}},
            "method": methods,
        }
        return unmemorize.run(suite, registry=toys, results=tmp_path / "results", **{"device": "cpu", **options})

    return run
