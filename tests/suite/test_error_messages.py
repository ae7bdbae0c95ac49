from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmemorize.errors import ConfigError, UnknownNameError
from unmemorize.registry import Registry
from unmemorize.suite import load_suite

Written = Callable[..., Path]


def complaint(registry: Registry, path: Path | dict[str, Any], **choice: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_suite(path, registry, **choice)
    assert "pydantic" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def test_a_wrong_key_is_named_with_its_dotted_path_and_the_nearest_right_one(
    registry: Registry, written: Written
) -> None:
    path = written("[method.cut]\nraito = 0.1\n")
    error = complaint(registry, path)
    assert error.what == f"suite 'mine' ({path}): method.cut.raito is not a setting"
    assert error.expected == "one of ratio, layers, scope"
    assert error.fix == "write method.cut.ratio; `unmemorize show cut` lists the settings"


@pytest.mark.parametrize(
    ("text", "what", "expected"),
    [
        (
            "[method.cut]\nratio = 5\n",
            "method.cut.ratio = 5 is wrong: input should be less than or equal to 1",
            "number > 0, <= 1 (default 0.05)",
        ),
        (
            "[method.cut]\nratio = [0.1, 0.0]\n",
            "method.cut.ratio = 0.0 is wrong: input should be greater than 0",
            "number > 0, <= 1 (default 0.05)",
        ),
        (
            "[method.cut]\nratio = 'half'\n",
            'method.cut.ratio = "half" is wrong: input should be a valid number',
            "number > 0, <= 1",
        ),
        (
            "[method.cut]\nscope = 'world'\n",
            "method.cut.scope = \"world\" is wrong: input should be 'layer' or 'global'",
            '"layer" | "global" (default "layer")',
        ),
        (
            "[method.cut]\nlayers = ['a']\n",
            'method.cut.layers[0] = "a" is wrong',
            "list of integer | none (default none)",
        ),
        (
            "[[method.tune]]\n[[method.tune]]\nepochs = 1.5\n",
            "method.tune[1].epochs = 1.5 is wrong",
            "integer (default 5)",
        ),
        ("[metric.surprise]\nx = 1\n", "metric.surprise.x is not a setting", "no settings at all"),
        ("[run]\ndeadline = -1\n", "run.deadline = -1 is wrong", "number > 0 | none (default none)"),
        ("[run]\ndevise = 'cpu'\n", "run.devise is not a setting", "one of device, "),
        ("[score]\nutilty = 'right'\n", "score.utilty is not a setting", "one of utility, "),
        ("[methods.cut]\n", "methods is not a setting", "one of method, "),
        ("[method]\ncut = 3\n", "method.cut = 3 is not a table", "a table: [method.cut]"),
        ("[method]\ncut = []\n", "method.cut = [] is not a table", "a table: [method.cut]"),
    ],
)
def test_each_mistake_is_named_with_its_path_and_what_is_right(
    registry: Registry, written: Written, text: str, what: str, expected: str
) -> None:
    error = complaint(registry, written(text))
    assert f": {what}" in error.what
    assert error.expected.startswith(expected)
    assert error.fix


def test_nested_tables_are_named_to_the_last_key(registry: Registry) -> None:
    def suite(**recipe: Any) -> dict[str, Any]:
        metrics: dict[str, Any] = {"extracted": {}, "right": {}}
        return {"name": "x", "metric": metrics, "testbed": {"noise": {"provider": "toy", "recipe": recipe}}}

    error = complaint(registry, suite(epoch=3))
    assert error.what == "suite 'x': testbed.noise.recipe.epoch is not a setting"
    assert error.expected == "one of epochs, betas"
    error = complaint(registry, suite(epochs=0))
    assert "testbed.noise.recipe.epochs = 0 is wrong" in error.what
    assert error.expected == "integer >= 1 (default 5)"
    assert error.fix == "write e.g. epochs = 5; `unmemorize show toy` lists the settings"
    assert 'testbed.noise.recipe.betas[1] = "x" is wrong' in complaint(registry, suite(betas=[0.9, "x"])).what


def test_more_than_one_mistake_is_counted(registry: Registry, written: Written) -> None:
    error = complaint(registry, written("[method.cut]\nratio = 5\nscope = 3\n"))
    assert error.what.endswith("(and 1 more like it)")


def test_settings_that_do_not_fit_together(registry: Registry, written: Written) -> None:
    error = complaint(registry, written("[method.tune]\nlow = 2\n"))
    assert error.what.endswith(": method.tune: low must be below high")
    assert error.fix == "`unmemorize show tune` lists the settings"


def test_a_syntax_error_names_line_and_column(registry: Registry, written: Written) -> None:
    path = written("x = = 1", start="name = 'x'\n")
    error = complaint(registry, path)
    assert error.what.startswith(f"{path}:2:5: ")
    assert error.fix == "correct suite.toml:2:5"


def test_a_file_that_is_not_text(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(b"name = '\xff'")
    assert "is not UTF-8 text" in complaint(registry, path).what


def test_a_suite_without_a_name(registry: Registry) -> None:
    error = complaint(registry, {"testbed": {"noise": {"provider": "toy"}}})
    assert error.what == "suite '?': name is missing"
    assert error.fix.startswith("write name = ...")


@pytest.mark.parametrize("name", ["a b", "", "../x", ".x"])
def test_a_name_that_cannot_be_a_folder(registry: Registry, name: str) -> None:
    assert "name = " in complaint(registry, {"name": name}).what


def test_a_section_that_is_no_table(registry: Registry) -> None:
    error = complaint(registry, {"name": "x", "metric": ["extracted"]})
    assert error.what == "suite 'x': metric.NAME = [\"extracted\"] is not a table"
    assert error.expected == "a table: [metric.NAME], with a setting on each line below it"


def test_a_testbed_without_a_provider(registry: Registry) -> None:
    error = complaint(registry, {"name": "x", "metric": {"extracted": {}, "right": {}}, "testbed": {"a": {}}})
    assert error.what == "suite 'x': testbed.a.provider is missing"
    assert error.expected == "the name of a provider: toy"


def test_a_testbed_whose_name_cannot_be_written(registry: Registry) -> None:
    error = complaint(registry, {"name": "x", "testbed": {"a b": {"provider": "toy"}}})
    assert error.fix == "write [testbed.a_b]"


@pytest.mark.parametrize(
    ("tables", "kind", "name"),
    [
        ({"testbed": {"a": {"provider": "toi"}}}, "provider", "toi"),
        ({"method": {"cat": {}}}, "method", "cat"),
        ({"method": {"base": {}}}, "method", "base"),
        ({"metric": {"rigth": {}}}, "metric", "rigth"),
    ],
)
def test_unknown_names_say_which_suite_names_them(
    registry: Registry, tables: dict[str, Any], kind: str, name: str
) -> None:
    sound = {"testbed": {"a": {"provider": "toy"}}, "metric": {"extracted": {}, "right": {}}}
    with pytest.raises(UnknownNameError, match=f"no {kind} is called '{name}' in suite 'x'"):
        load_suite({"name": "x", **sound, **tables}, registry)
