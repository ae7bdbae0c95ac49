from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmemorize.errors import ConfigError
from unmemorize.registry import Registry
from unmemorize.suite import load_suite
from unmemorize.suite.overrides import parse

Written = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a = 0.5 ", 0.5),
        ("a=[0, 1]", [0, 1]),
        ("a=true", True),
        ('a="1"', "1"),
        ("a=global", "global"),
        ("a={ x = 1 }", {"x": 1}),
        ("a=[0, 1", "[0, 1"),
        ("a=x=y", "x=y"),
        ("a=1\nb = 2", "1\nb = 2"),
        ("a=", ""),
    ],
)
def test_values_are_toml_and_otherwise_text(text: str, value: Any) -> None:
    assert parse(text) == ("a", value)


@pytest.mark.parametrize("text", ["method.cut.ratio", "=3", ""])
def test_an_override_without_a_value_or_path(text: str) -> None:
    with pytest.raises(ConfigError, match="has no value"):
        parse(text)


def load(registry: Registry, path: Path, *overrides: str, **choice: Any) -> Any:
    return load_suite(path, registry, overrides=overrides, **choice)


def test_overrides_reach_every_part(registry: Registry, written: Written) -> None:
    suite = load(
        registry,
        written("[method.cut]\nratio = [0.1, 0.2]\n"),
        "method.cut.ratio=0.3",
        "metric.extracted.prompt=32",
        "testbed.noise.layers=[2, 4]",
        "testbed.noise.recipe.epochs=9",
        "run.deadline=5",
        "score.utility=right",
        "description=hello",
    )
    assert [config.ratio for config in suite.methods[0].configs] == [0.3]
    assert suite.metrics[0].config.prompt == 32
    assert [entry.name for entry in suite.testbeds] == ["noise[layers=2]", "noise[layers=4]"]
    assert suite.testbeds[0].config.recipe.epochs == 9
    assert suite.run.deadline == 5
    assert suite.description == "hello"


def test_a_nested_override_keeps_what_the_file_says_beside_it(registry: Registry, written: Written) -> None:
    path = written("[testbed.other]\nprovider='toy'\nsize='paper'\nrecipe = { betas = [0.5, 0.6] }\n")
    suite = load(registry, path, "testbed.other.recipe.epochs=9")
    assert suite.testbeds[1].config.recipe.betas == (0.5, 0.6)
    assert suite.testbeds[1].config.recipe.epochs == 9


def test_an_array_of_tables_takes_an_override_in_every_table(registry: Registry, written: Written) -> None:
    path = written("[[method.tune]]\nepochs = 1\n[[method.tune]]\nepochs = 2\nlow = 0.5\n")
    configs = load(registry, path, "method.tune.epochs=3").methods[0].configs
    assert [(config.epochs, config.low) for config in configs] == [(3, 0.0), (3, 0.5)]


def test_the_later_override_wins(registry: Registry, written: Written) -> None:
    assert load(registry, written(""), "seeds=[1]", "seeds=[2]").seeds == (2,)


@pytest.mark.parametrize("setting", ["run.executor_config.workers", "executor.workers"])
def test_executor_settings_are_free_paths(registry: Registry, written: Written, setting: str) -> None:
    suite = load(registry, written(""), "run.executor=workers", f"{setting}=4")
    assert suite.run.executor_config == {"workers": 4}


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("method.cut.raito", "method.cut.ratio"),
        ("methd.cut.ratio", "method.cut.ratio"),
        ("seed", "seeds"),
        ("testbed.noise.layer", "testbed.noise.layers"),
        ("testbed.noise.recipe.epoch", "testbed.noise.recipe.epochs"),
        ("metric.extracted.promt", "metric.extracted.prompt"),
        ("run.devise", "run.device"),
    ],
)
def test_an_unknown_path_names_the_nearest(registry: Registry, written: Written, path: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(registry, written("[method.cut]"), f"{path}=1")
    assert caught.value.what == f"--set {path}: the suite has no such setting"
    assert caught.value.expected.startswith(f"one of {nearest}, ")
    assert caught.value.fix.startswith(f"write --set {nearest}=VALUE")


@pytest.mark.parametrize("path", ["method.cut", "method", "plugins.files", "testbed.noise", "method.tune.epochs"])
def test_whole_tables_and_methods_that_are_not_chosen_are_no_paths(
    registry: Registry, written: Written, path: str
) -> None:
    with pytest.raises(ConfigError, match="has no such setting"):
        load(registry, written("[method.cut]\n[method.tune]"), f"{path}=1", methods=["cut"])


def test_a_wrong_value_is_named_like_one_in_the_file(registry: Registry, written: Written) -> None:
    with pytest.raises(ConfigError, match=r"method\.cut\.ratio = 7 is wrong"):
        load(registry, written("[method.cut]"), "method.cut.ratio=7")
