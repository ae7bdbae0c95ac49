"""Estimates: what a probe finds, what is free, and methods that do not fit are refused before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unmemorize import Context, Cost, Method, Testbed
from unmemorize.errors import DataError
from unmemorize.execution import estimate, memory
from unmemorize.execution.estimate import Need, advice_for, estimate_cost, needed
from unmemorize.execution.memory import free_bytes
from unmemorize.execution.probe import Rates, activation_bytes, probe, probe_rows
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed
from unmemorize.testing.models import known_mlps

CPU = torch.device("cpu")
RATES = Rates(forward=2.0, backward=3.0, training=5.0, sweep=0.5, multiplication=0.25)


class Declares(Method):
    """A method that declares what it is told."""

    name = "declares"
    stage = "unlearn"
    declared: Cost | None = Cost()

    def cost(self, testbed: Testbed) -> Cost | None:
        return self.declared

    def apply(self, testbed: Testbed, context: Context) -> None:
        raise AssertionError("it was not to act")


def declaring(**units: Any) -> Method:
    method = Declares()
    method.declared = Cost(**units)
    return method


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest, registry: Registry) -> Testbed:
    model = tiny_model(request.param)
    return tiny_testbed(model, known_mlps(model, registry))


def test_seconds_are_units_times_rates(testbed: Testbed) -> None:
    method = declaring(forward_tokens=1, backward_tokens=10, training_tokens=100, sweeps=4, multiplications=8)
    found = estimate_cost(testbed, method, RATES)
    assert found is not None
    assert found.seconds == 2 + 30 + 500 + 2 + 2
    assert found.reason is None


def test_a_method_that_does_not_say_has_no_estimate(testbed: Testbed) -> None:
    method = Declares()
    method.declared = None
    assert estimate_cost(testbed, method, RATES) is None


def test_a_probe_leaves_the_model_as_it_was_and_finds_positive_rates(testbed: Testbed) -> None:
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    rates = probe(testbed, Context())
    assert all(rate > 0 for rate in rates)
    for checkpointing in (False, True):
        assert activation_bytes(testbed, Context(checkpointing=checkpointing), training=True) > 0
    assert all(torch.equal(value, before[name]) for name, value in testbed.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in testbed.model.parameters())
    assert all("forward" not in module.__dict__ for module in testbed.model.modules())


def test_activations_are_what_autograd_keeps(testbed: Testbed) -> None:
    width, neurons, layers = 16, testbed.mlps[0].neurons, len(testbed.mlps)
    few, all_of_them = (activation_bytes(testbed, Context(), training=training) for training in (False, True))
    assert 4 * layers * (width + 2 * neurons) < few <= all_of_them
    assert activation_bytes(testbed, Context(checkpointing=True), training=True) < all_of_them


def test_an_estimate_without_a_forget_set_takes_another_one(testbed: Testbed) -> None:
    testbed.forget = tiny_sequences(1, seed=0).select([])
    assert len(probe_rows(testbed)) > 0
    testbed.forget_unseen = testbed.retain = testbed.extra = None
    testbed.holdouts = {}
    with pytest.raises(DataError, match="holds no sequences, so nothing can be probed"):
        probe_rows(testbed)


def test_held_tokens_become_activations_and_bounded_logits(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Cost(held_tokens=10, device_bytes=1000, cpu_bytes=7)
    here = Context()
    assert needed(testbed, cost, here, activations=3.0)[:2] == (1000 + 30 + 16 * 10 * 29, 7)
    monkeypatch.setattr(estimate, "LOGITS_AT_ONCE", 29)
    assert needed(testbed, cost, here, activations=3.0).device == 1000 + 30 + 16 * 29


def test_the_cpu_holds_what_both_need() -> None:
    assert Need(device=4.0, cpu=4.0, free_device=0, free_cpu=8, on_cpu=True).fits
    need = Need(device=3 * 2**30, cpu=2**30, free_device=2**40, free_cpu=2**31, on_cpu=True)
    assert not need.fits
    assert need.reason("set x") == "does not fit: needs about 4 GiB of main memory, 2 GiB free; set x"


def test_an_accelerator_and_main_memory_are_told_apart() -> None:
    need = Need(device=3.0 * 2**30, cpu=2**30, free_device=2**30, free_cpu=2**40, on_cpu=False)
    assert need.reason("") == (
        "does not fit: needs about 3 GiB on the device, 1 GiB free; use a smaller model or a larger machine"
    )
    assert "1 GiB of main memory, 0.5 GiB free" in need._replace(device=0.0, free_cpu=2**29).reason("")


def test_advice_names_the_switches_that_are_still_off(testbed: Testbed) -> None:
    on_gpu = Need(device=100.0, cpu=0.0, free_device=1, free_cpu=1, on_cpu=False)
    cost = Cost(device_bytes=10, offloadable_bytes=10, advice="set fewer steps")
    assert advice_for(cost, on_gpu, Context()) == (
        "set fewer steps; "
        "or set run.checkpointing=true in a suite, checkpointing=True in mitigate(...), --checkpointing on its command "
        "line; or set run.offload=true in a suite, offload=True in mitigate(...), --offload on its command line"
    )
    assert advice_for(cost, on_gpu, Context(checkpointing=True, offload=True)) == "set fewer steps"


def test_what_is_kept_goes_where_the_switches_say(testbed: Testbed) -> None:
    cost, layers = Cost(block_bytes=1200.0, offloadable_bytes=50.0), len(testbed.mlps)
    assert needed(testbed, cost, Context())[:2] == (1250, 0)
    assert needed(testbed, cost, Context(checkpointing=True, offload=True))[:2] == (1200 / layers, 50)


def test_free_memory_is_what_the_group_of_processes_may_still_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("2500\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    assert memory._left_to_group(tmp_path) == 800
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_to_group(tmp_path) > 2**60
    assert memory._left_to_group(tmp_path / "nowhere") > 2**60
    monkeypatch.setattr(memory, "_left_to_group", lambda: 5)
    assert free_bytes(CPU) == 5
