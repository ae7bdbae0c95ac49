from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.method import Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.errors import ConfigError
from unmemorize.evaluation.metric import Metric
from unmemorize.execution.plan import Cell, Estimate, estimate, plan, split
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.suite import load_suite


class ToyConfig(StrictConfig):
    layers: int = 2
    tasks: frozenset[str] = frozenset({"additive", "multiplicative", "noise"})


class CutConfig(StrictConfig):
    ratio: float = 0.05


class ExtractedConfig(StrictConfig):
    prompt: int = 50


def plugin(fingerprint: dict[str, str]) -> SimpleNamespace:
    class Toy(ModelProvider):
        name, Config = "toy", ToyConfig

        def fingerprint(self) -> dict[str, str]:
            return fingerprint

        def load(self, context: Any) -> Any: ...

    class Cut(Method):
        name, stage, Config = "cut", "unlearn", CutConfig

        def apply(self, testbed: Any, context: Any) -> None: ...

    class Burn(Cut):
        name = "burn"

    class Extracted(Metric):
        name, kind, direction, range = "extracted", "memorization", "lower", (0.0, 100.0)
        Config = ExtractedConfig

        def measure(self, evaluation: Any) -> Any: ...

    class Right(Metric):
        name, kind, direction, range = "right", "utility", "higher", (0.0, 100.0)

        def measure(self, evaluation: Any) -> Any: ...

    return SimpleNamespace(
        register_methods=hookimpl(lambda: [Cut, Burn]),
        register_metrics=hookimpl(lambda: [Extracted, Right]),
        register_providers=hookimpl(lambda: [Toy]),
    )


SUITE: dict[str, Any] = {
    "name": "mine",
    "seeds": [0, 1],
    "testbed": {"noise": {"provider": "toy"}, "deep": {"provider": "toy", "layers": 4}},
    "method": {"cut": {"ratio": [0.05, 0.1]}, "burn": {}},
    "metric": {"extracted": {}, "right": {}},
}


def cells(
    *overrides: str,
    suite: dict[str, Any] = SUITE,
    fingerprint: dict[str, str] | None = None,
    name: str = "inline",
    distribution: str = "d",
    version: str = "1",
    **choice: Any,
) -> tuple[Cell, ...]:
    registry = Registry()
    registry.add(plugin(fingerprint or {}), name=name, distribution=distribution, version=version)
    return plan(load_suite(suite, registry, overrides=overrides, **choice), registry)


def keys(*overrides: str, **changes: Any) -> list[str]:
    return [cell.key for cell in cells(*overrides, **changes)]


def test_each_testbed_and_seed_has_its_base_first_and_its_methods_in_order() -> None:
    found = [(c.testbed, c.seed, c.method, c.method_config.get("ratio")) for c in cells()]
    block = [("base", None), ("cut", 0.05), ("cut", 0.1), ("burn", 0.05)]
    assert found == [(t, s, m, r) for t in ("noise", "deep") for s in (0, 1) for m, r in block]
    assert [cell.index for cell in cells()] == list(range(16))


def test_a_cell_knows_everything_that_its_record_needs() -> None:
    base, cut = cells(fingerprint={"corpus": "abc"})[:2]
    assert (base.suite, base.provider, base.fingerprint) == ("mine", "toy", {"corpus": "abc"})
    assert base.provider_config == {"layers": 2, "tasks": ["additive", "multiplicative", "noise"]}
    assert (base.method, base.method_origin, base.method_config) == ("base", None, {})
    assert cut.method_origin is not None
    assert (cut.method_origin.distribution, cut.method_origin.version) == ("d", "1")
    assert (cut.memorization, cut.utility) == ("extracted", "right")
    assert cut.metrics == {"extracted": {"prompt": 50}, "right": {}}
    assert [origin.name for origin in cut.metric_origins] == ["extracted", "right"]
    assert cut.provider_origin.name == "toy"


def test_cells_are_frozen_and_cross_process_borders() -> None:
    cell = cells()[1]
    assert pickle.loads(pickle.dumps(cell)) == cell
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.seed = 3  # type: ignore[misc]


def test_keys_are_16_bytes_in_hex_and_all_different() -> None:
    found = keys()
    assert len(set(found)) == 16
    assert all(len(bytes.fromhex(key)) == 16 for key in found)


def test_cells_of_one_testbed_and_seed_are_one_group() -> None:
    groups: dict[str, set[tuple[str, int]]] = {}
    for cell in cells():
        groups.setdefault(cell.group, set()).add((cell.testbed, cell.seed))
    assert sorted(map(len, groups.values())) == [1, 1, 1, 1]


def test_a_key_is_the_same_in_another_process_whatever_its_hash_seed() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_plan; "
        "print(*test_plan.keys(seeds=[0], testbeds=['noise']))"
    )
    folder = __file__.rpartition("/")[0] or "."
    found = {
        subprocess.run(
            [sys.executable, "-c", code, folder],
            capture_output=True,
            text=True,
            check=True,
            env=_environment(seed),
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert found == {" ".join(keys(seeds=[0], testbeds=["noise"])) + "\n"}


def _environment(hash_seed: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONHASHSEED": hash_seed}


class TestWhatChangesNoKey:
    def test_defaults_written_out(self) -> None:
        assert keys("testbed.noise.layers=2", "metric.extracted.prompt=50", "method.burn.ratio=0.05") == keys()

    def test_the_name_of_the_suite_device_executor_and_deadline(self) -> None:
        assert keys("name=other", "run.device=cuda", "run.deadline=3", "description=x") == keys()

    def test_the_names_of_testbeds(self) -> None:
        testbeds = {"other_name": SUITE["testbed"]["noise"], "third": SUITE["testbed"]["deep"]}
        assert keys(suite={**SUITE, "testbed": testbeds}) == keys()

    def test_order_and_company(self) -> None:
        reversed_methods = {"burn": {}, "cut": {"ratio": [0.1, 0.05]}}
        assert set(keys(suite={**SUITE, "method": reversed_methods})) == set(keys())
        assert set(keys(methods=["burn"])) < set(keys())
        assert set(keys(seeds=[1])) < set(keys())

    def test_the_order_of_metrics(self) -> None:
        assert keys(suite={**SUITE, "metric": {"right": {}, "extracted": {}}}) == keys()

    def test_the_name_of_the_entry_point(self) -> None:
        assert keys(name="renamed") == keys()


class TestWhatChangesAKey:
    @pytest.mark.parametrize(
        "changes",
        [
            {"fingerprint": {"corpus": "abc"}},
            {"distribution": "another"},
            {"version": "2"},
            {
                "metrics": ["extracted", "right"],
                "suite": {**SUITE, "metric": {"extracted": {"prompt": 9}, "right": {}}},
            },
        ],
    )
    def test_of_every_cell(self, changes: dict[str, Any]) -> None:
        assert not set(keys(**changes)) & set(keys())

    def test_a_method_setting_touches_that_method_only(self) -> None:
        before, after = cells(), cells("method.burn.ratio=0.5")
        assert {a.method for b, a in zip(before, after, strict=True) if a.key != b.key} == {"burn"}

    def test_a_testbed_setting_touches_that_testbed_only(self) -> None:
        before, after = cells(), cells("testbed.noise.layers=8")
        assert {a.testbed for b, a in zip(before, after, strict=True) if a.key != b.key} == {"noise"}

    def test_the_base_depends_on_no_method(self) -> None:
        base = {cell.key for cell in cells() if cell.method == "base"}
        assert base == {cell.key for cell in cells(methods=["base"])}
        assert base == {cell.key for cell in cells("method.burn.ratio=0.5") if cell.method == "base"}

    def test_two_methods_with_the_same_settings_differ(self) -> None:
        cut, burn = (cells(methods=[name], seeds=[0], testbeds=["noise"])[1] for name in ("cut", "burn"))
        assert cut.method_config == burn.method_config
        assert cut.key != burn.key


def test_the_key_of_a_known_cell_never_changes() -> None:
    # If this fails, every stored record is orphaned: raise KEY_VERSION only on purpose.
    assert keys(methods=["burn"], seeds=[0], testbeds=["noise"]) == KNOWN


KNOWN = ["4c3f317a772bd63dd2113f7dcd45791e", "772fcf5a85578f0799becf7a5795e87f"]


def test_two_testbeds_that_are_the_same_are_refused() -> None:
    testbeds = {"a": {"provider": "toy"}, "b": {"provider": "toy", "layers": 2}}
    with pytest.raises(ConfigError, match="testbeds 'a' and 'b' are the same"):
        cells(suite={**SUITE, "testbed": testbeds})


def test_split_keeps_the_order_and_loses_nothing() -> None:
    planned = cells()
    done = {planned[0].key, planned[5].key, "of another suite"}
    cached, to_run = split(planned, done)
    assert [cell.index for cell in cached] == [0, 5]
    assert [cell.index for cell in to_run] == [index for index in range(16) if index not in (0, 5)]


def test_estimates_count_what_nobody_knows() -> None:
    planned = cells(seeds=[0], testbeds=["noise"])
    assert estimate(planned, {"base": 1.0, "cut": 2.5}) == Estimate(6.0, 1)
    assert estimate(planned, {}) == Estimate(0, 4)
    assert estimate([], {}) == Estimate(0, 0)
