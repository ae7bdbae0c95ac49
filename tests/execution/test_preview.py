"""Previews of cells, and cells whose method cannot fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
import torch

import unmemorize
from unmemorize import Cost, hookimpl
from unmemorize.execution import estimate
from unmemorize.execution.plan import plan
from unmemorize.execution.preview import Preview, preview
from unmemorize.execution.runtime import Runtime
from unmemorize.registry.manager import Registry
from unmemorize.suite.load import load_suite

Run = Callable[..., unmemorize.Results]


class Huge(unmemorize.Method):
    """A method that needs more memory than there is."""

    name = "toy_huge"
    stage = "unlearn"

    def cost(self, testbed: unmemorize.Testbed) -> Cost:
        """Return a lot."""
        return Cost(device_bytes=2.0**60, advice="set less")

    def apply(self, testbed: unmemorize.Testbed, context: unmemorize.Context) -> None:
        """Never get here."""
        raise AssertionError


class Plugin:
    @hookimpl
    def register_methods(self) -> list[type[unmemorize.Method]]:
        return [Huge]


def previews(registry: Registry, methods: dict[str, Any], ready: bool) -> dict[str, Preview]:
    provider = registry.provider("toy")
    patched = pytest.MonkeyPatch()
    patched.setattr(provider, "ready", lambda self, context: ready, raising=False)
    suite = load_suite(
        {
            "name": "toys", "description": "tiny", "testbed": {"toy": {"provider": "toy"}},
            "metric": {"extraction": {}, "accuracy": {}}, "method": methods,
        },
        registry,
    )  # fmt: skip
    try:
        return {one.cell.method: one for one in preview(plan(suite, registry), registry, Runtime())}
    finally:
        patched.undo()


def test_what_does_not_fit_is_skipped_before_anything_is_spent(run_toys: Run, toys: Registry) -> None:
    toys.add(Plugin(), name="huge")
    frame = run_toys({"toy_huge": {}, "durable": {"ratio": 0.05}}).frame
    row = frame.filter(pl.col("method") == "toy_huge")
    assert row["status"].item() == "skipped"
    assert row["reason"].item().startswith("does not fit: needs about 1.07e+09 GiB of main memory, ")
    assert row["reason"].item().endswith("GiB free; set less")
    assert frame.filter(pl.col("method") == "durable")["status"].item() == "done"


def test_a_free_that_shrinks_decides(run_toys: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "free_bytes", lambda device: 10)
    frame = run_toys({"subnet": {"ratio": 0.1}}).frame
    assert "does not fit" in frame.filter(pl.col("method") == "subnet")["reason"].item()
    assert "set fewer epochs" in frame.filter(pl.col("method") == "subnet")["reason"].item()


def test_every_cell_but_the_base_is_previewed(toys: Registry) -> None:
    toys.add(Plugin(), name="huge")
    found = previews(toys, {"durable": {}, "toy_rewrites": {}, "toy_nothing": {}, "toy_huge": {}}, ready=True)
    assert set(found) == {"durable", "toy_rewrites", "toy_nothing", "toy_huge"}
    durable = found["durable"].estimate
    assert durable is not None
    assert durable.seconds > 0
    assert found["durable"].remark == ""
    assert found["toy_rewrites"].remark == "skipped: it needs the clean set, and this testbed has none"
    assert found["toy_nothing"].remark == "the method does not say what it costs"
    assert found["toy_huge"].remark.startswith("skipped: does not fit")


def test_testbeds_that_must_be_trained_first_are_not_loaded(toys: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys.provider("toy"), "load", lambda *_: pytest.fail("it was loaded"))
    found = previews(toys, {"durable": {}}, ready=False)
    assert found["durable"].estimate is None
    assert "must be trained first" in found["durable"].remark


def test_blocks_are_recomputed_while_a_method_acts_if_the_suite_says_so(
    run_toys: Run, toys: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bool] = []
    provider = toys.provider("toy")
    own = provider.load

    def load(self: Any, context: Any) -> unmemorize.Testbed:
        testbed: unmemorize.Testbed = own(self, context)
        hooked: Any = testbed.model
        hooked.transformer.h[0].mlp.c_fc.register_forward_hook(lambda *_: ran.append(torch.is_grad_enabled()))
        return testbed

    monkeypatch.setattr(provider, "load", load)
    method = {"durable": {"ratio": 0.05, "batch_size": 32}}
    results = run_toys(method, overrides=["run.checkpointing=true", "run.offload=true"])
    assert results.frame.filter(pl.col("method") == "durable")["status"].item() == "done"
    assert ran.count(True) == 4  # once to count activations, once to warm up, twice in the method
    key = results.frame.filter(pl.col("method") == "durable")["key"].item()
    again = run_toys(method)
    assert again.frame.filter(pl.col("method") == "durable")["key"].item() == key
