from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unmemorize.errors import ConfigError, PluginError, UnknownNameError
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.suite import load_suite

Written = Callable[..., Path]


def test_a_whole_suite(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    path.write_text(
        """
name = "whole"
description = "Everything that a suite may hold."
seeds = [0, 3]
[score]
memorization = "extracted"
utility = "surprise"
[run]
executor = "workers"
executor_config = { workers = 3 }
deadline = 600
device = "cpu"
[testbed.noise]
provider = "toy"
size = "paper"
[testbed.noise.recipe]
epochs = 7
[method.cut]
ratio = [0.05, 0.1]
[[method.tune]]
epochs = 1
[[method.tune]]
epochs = [2, 3]
high = 2
[metric.extracted]
prompt = 32
[metric.right]
[metric.surprise]
"""
    )
    suite = load_suite(path, registry)
    assert (suite.name, suite.seeds, suite.path) == ("whole", (0, 3), path)
    assert (suite.memorization, suite.utility) == ("extracted", "surprise")
    assert (suite.run.executor, suite.run.executor_config, suite.run.deadline) == (
        "workers",
        {"workers": 3},
        600,
    )
    (testbed,) = suite.testbeds
    assert (testbed.name, testbed.provider) == ("noise", "toy")
    assert testbed.config.size == "paper"  # type: ignore[attr-defined]
    assert testbed.config.recipe.epochs == 7  # type: ignore[attr-defined]
    cut, tune = suite.methods
    assert [config.ratio for config in cut.configs] == [0.05, 0.1]  # type: ignore[attr-defined]
    assert [(c.epochs, c.high) for c in tune.configs] == [(1, 1.0), (2, 2.0), (3, 2.0)]  # type: ignore[attr-defined]
    assert [entry.name for entry in suite.metrics] == ["extracted", "right", "surprise"]
    assert suite.metrics[0].config.prompt == 32  # type: ignore[attr-defined]


def test_a_suite_is_frozen_and_dumps_whole(registry: Registry, written: Written) -> None:
    suite = load_suite(written("[method.cut]"), registry)
    with pytest.raises(ValueError, match="frozen"):
        suite.name = "other"  # type: ignore[misc]
    assert suite.model_dump(mode="json")["methods"][0]["configs"][0]["ratio"] == 0.05


def test_a_dict_means_what_the_file_means_and_is_not_written_to(registry: Registry, written: Written) -> None:
    path = written("[method.cut]\nratio = [0.1, 0.2]")
    tables = tomllib.loads(path.read_text())
    before = str(tables)
    from_dict = load_suite(tables, registry, overrides=["seeds=[4]"], methods=["cut", "tune"])
    assert str(tables) == before
    assert from_dict == load_suite(path, registry, overrides=["seeds=[4]"], methods=["cut", "tune"]).model_copy(
        update={"path": None}
    )


def test_a_byte_order_mark_is_no_part_of_a_suite(registry: Registry, written: Written, tmp_path: Path) -> None:
    path = written("[method.cut]")
    plain = load_suite(path, registry)
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_suite(path, registry) == plain
    plugin = SimpleNamespace(register_suites=hookimpl(lambda: [path]))
    assert registry.add(plugin).provides == {"suite": (plain.name,)}


def test_headline_metrics_default_to_the_first_of_each_kind(registry: Registry, written: Written) -> None:
    suite = load_suite(written("[metric.surprise]"), registry)
    assert (suite.memorization, suite.utility) == ("extracted", "right")


@pytest.mark.parametrize("kept", ["extracted", "right"])
def test_a_suite_needs_a_headline_metric_of_both_kinds(registry: Registry, written: Written, kept: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_suite(written(""), registry, metrics=[kept])
    assert "has no utility metric" in caught.value.what or "has no memorization metric" in caught.value.what
    assert "write [metric." in caught.value.fix


@pytest.mark.parametrize("wanted", ["extracted", "surprise", "nothing"])
def test_score_names_a_metric_of_its_kind_in_this_suite(registry: Registry, written: Written, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_suite(written(f"[score]\nutility = '{wanted}'"), registry)
    assert f"score.utility = '{wanted}' is no utility metric of this suite" in caught.value.what
    assert caught.value.expected == "one of right"


def test_a_registered_name_a_path_and_a_folder(
    registry: Registry, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("")
    registry.add(SimpleNamespace(register_suites=hookimpl(lambda: [path])), name="suites")
    monkeypatch.chdir(tmp_path)
    assert load_suite("mine", registry).path == path
    assert load_suite("suite.toml", registry).name == "mine"
    assert load_suite(str(tmp_path), registry).path == path
    assert load_suite("./suite.toml", registry).name == "mine"


def test_an_unknown_suite_names_near_ones(registry: Registry, written: Written) -> None:
    path = written("")
    registry.add(SimpleNamespace(register_suites=hookimpl(lambda: [path])), name="suites")
    with pytest.raises(UnknownNameError, match="no suite is called 'mien'") as caught:
        load_suite("mien", registry)
    assert caught.value.expected == "one of mine"
    with pytest.raises(ConfigError, match=r"the suite file no/such\.toml does not exist"):
        load_suite("no/such.toml", registry)


def test_seeds_from_a_caller_replace_those_of_the_suite(registry: Registry, written: Written) -> None:
    assert load_suite(written(""), registry, seeds=[5, 1]).seeds == (5, 1)
    assert load_suite(written(""), registry, overrides=["seeds=7"]).seeds == (7,)


@pytest.mark.parametrize("seeds", ["[]", "[1, 1]", "[-1]", '["a"]', "[1.5]", "true"])
def test_wrong_seeds(registry: Registry, written: Written, seeds: str) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        load_suite(written(""), registry, overrides=[f"seeds={seeds}"])


def test_a_suite_without_testbeds_says_how_to_write_one(registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        load_suite({"name": "x", "metric": {"extracted": {}, "right": {}}}, registry)
    assert caught.value.what == "suite 'x' lists no testbed"
    assert caught.value.fix == 'write [testbed.mine] and below it provider = "toy"'


def test_a_suite_without_methods_measures_the_base(registry: Registry, written: Written) -> None:
    assert load_suite(written(""), registry).methods == ()


class TestSelection:
    TEXT = "[method.cut]\nratio = 0.3\n[method.tune]\n"

    def methods(self, registry: Registry, written: Written, wanted: list[str]) -> list[str]:
        return [entry.name for entry in load_suite(written(self.TEXT), registry, methods=wanted).methods]

    def test_a_subset_keeps_the_order_of_the_suite(self, registry: Registry, written: Written) -> None:
        assert self.methods(registry, written, ["tune", "cut"]) == ["cut", "tune"]
        assert self.methods(registry, written, ["tune"]) == ["tune"]

    def test_base_may_be_named(self, registry: Registry, written: Written) -> None:
        assert self.methods(registry, written, ["base"]) == []
        assert self.methods(registry, written, ["base", "cut"]) == ["cut"]

    def test_a_registered_method_joins_with_its_defaults(self, registry: Registry, written: Written) -> None:
        suite = load_suite(written("[method.tune]"), registry, methods=["cut", "tune"])
        assert [entry.name for entry in suite.methods] == ["tune", "cut"]
        assert suite.methods[1].configs[0].ratio == 0.05  # type: ignore[attr-defined]

    def test_a_method_that_joins_takes_overrides(self, registry: Registry, written: Written) -> None:
        suite = load_suite(written(""), registry, methods=["cut"], overrides=["method.cut.ratio=[0.1, 0.2]"])
        assert len(suite.methods[0].configs) == 2

    def test_an_unknown_method_names_near_ones(self, registry: Registry, written: Written) -> None:
        with pytest.raises(UnknownNameError, match="no method is called 'cat'"):
            self.methods(registry, written, ["cat"])

    def test_metrics_are_chosen_in_the_same_way(self, registry: Registry, written: Written) -> None:
        suite = load_suite(written(""), registry, metrics=["surprise", "extracted"])
        assert [entry.name for entry in suite.metrics] == ["extracted", "surprise"]
        assert suite.utility == "surprise"

    def test_testbeds_are_chosen_by_table_or_by_point(self, registry: Registry, written: Written) -> None:
        path = written("layers = [2, 4]\n[testbed.other]\nprovider = 'toy'\nsize = 'paper'\n", start=GRID)
        names = lambda wanted: [t.name for t in load_suite(path, registry, testbeds=wanted).testbeds]  # noqa: E731
        assert names(["noise"]) == ["noise[layers=2]", "noise[layers=4]"]
        assert names(["noise[layers=4]", "other"]) == ["noise[layers=4]", "other"]
        with pytest.raises(ConfigError, match="has no testbed called 'nosie'") as caught:
            names(["nosie"])
        assert caught.value.fix == "write --testbeds noise"


GRID = """
name = "mine"
[metric.extracted]
[metric.right]
[testbed.noise]
provider = "toy"
"""

PLUGIN = """
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.contracts.method import Method
class Mine(Method):
    name, stage = "mine", "unlearn"
    def apply(self, testbed, context): ...
@hookimpl
def register_methods():
    return [Mine]
"""


class TestPluginFiles:
    def test_are_relative_to_the_suite_and_loaded_before_names_are_looked_up(
        self, registry: Registry, written: Written, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = written("[plugins]\nfiles = ['my_plugin.py']\n[method.mine]\n")
        (path.parent / "my_plugin.py").write_text(PLUGIN)
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        suite = load_suite(path, registry)
        assert [entry.name for entry in suite.methods] == ["mine"]
        assert suite.files == (path.parent / "my_plugin.py",)
        assert registry.files == suite.files
        assert load_suite(path, registry) == suite

    def test_that_are_missing_are_named(self, registry: Registry, written: Written) -> None:
        with pytest.raises(PluginError, match=r"none\.py does not exist"):
            load_suite(written("[plugins]\nfiles = ['none.py']\n"), registry)

    def test_of_a_wrong_type(self, registry: Registry, written: Written) -> None:
        with pytest.raises(ConfigError, match=r"plugins\.files = 3 is wrong"):
            load_suite(written("[plugins]\nfiles = 3\n"), registry)
        with pytest.raises(ConfigError, match=r"plugins\.file is not a setting"):
            load_suite(written("[plugins]\nfile = ['x.py']\n"), registry)


def test_executors_are_checked(registry: Registry, written: Written) -> None:
    with pytest.raises(UnknownNameError, match=r"no executor is called 'workrs'[\s\S]*one of .*inline"):
        load_suite(written(""), registry, overrides=["run.executor=workrs"])
    with pytest.raises(ConfigError, match=r"run\.executor_config\.wrkers is not a setting"):
        load_suite(written("[run]\nexecutor='workers'\nexecutor_config={wrkers=1}"), registry)
    with pytest.raises(ConfigError, match=r"run\.executor_config\.workers is not a setting"):
        load_suite(written("[run]\nexecutor_config={workers=1}"), registry)


def test_an_executor_that_is_chosen_does_not_take_the_settings_of_another(registry: Registry, written: Written) -> None:
    path = written("[run]\ndeadline=5\nexecutor='other'\nexecutor_config={threads=3}")
    run = load_suite(path, registry, executor="workers", overrides=["executor.workers=4"]).run
    assert (run.executor, run.executor_config, run.deadline) == ("workers", {"workers": 4}, 5)
    path = written("[run]\nexecutor='workers'\nexecutor_config={workers=3}")
    assert load_suite(path, registry, executor="workers").run.executor_config == {"workers": 3}


def test_files_of_an_executor_lie_beside_the_suite_or_in_the_working_directory(
    registry: Registry, written: Written, tmp_path: Path
) -> None:
    path = written("[run]\nexecutor='workers'\nexecutor_config={file='mine.py'}")
    assert load_suite(path, registry).run.executor_config == {"file": "mine.py"}
    (tmp_path / "mine.py").touch()
    assert load_suite(path, registry).run.executor_config == {"file": str(tmp_path / "mine.py")}


def test_the_order_of_tables_never_matters_to_what_is_in_them(registry: Registry) -> None:
    tables: dict[str, Any] = {
        "method": {"cut": {}},
        "metric": {"right": {}, "extracted": {}},
        "testbed": {"a": {"provider": "toy"}},
        "name": "x",
    }
    suite = load_suite(tables, registry)
    assert (suite.memorization, suite.utility) == ("extracted", "right")
