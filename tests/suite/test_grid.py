from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import ConfigError
from unmemorize.registry import Registry
from unmemorize.suite import load_suite
from unmemorize.suite.grid import expand, type_depth, value_depth


class Config(StrictConfig):
    ratio: float = 0.1
    scope: str = "layer"
    layers: tuple[int, ...] | None = None
    pairs: list[tuple[int, int]] = []  # noqa: RUF012 - pydantic copies defaults


@pytest.mark.parametrize(
    ("annotation", "depth"),
    [
        (int, 0),
        (str, 0),
        (bytes, 0),
        (Any, 0),
        (Literal["a", "b"], 0),
        (dict[str, list[int]], 0),
        (list, 1),
        (list[int], 1),
        (tuple[float, float], 1),
        (frozenset[str], 1),
        (Sequence[int], 1),
        (tuple[int, ...] | None, 1),
        (Optional[list[int]], 1),  # noqa: UP045 - written as older plugins write it
        (int | list[int], 1),
        (Annotated[list[int], Field(min_length=1)], 1),
        (Annotated[list[int], Field(min_length=1)] | None, 1),
        (list[list[int]], 2),
        (tuple[tuple[int, int], ...], 2),
    ],
)
def test_the_depth_of_types(annotation: Any, depth: int) -> None:
    assert type_depth(annotation) == depth


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ("ab", 0), ({}, 0), ([], 1), ((1,), 1), ([1, [2]], 2)])
def test_the_depth_of_values(value: Any, depth: int) -> None:
    assert value_depth(value) == depth


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, [{}]),
        ({"ratio": 0.1}, [{"ratio": 0.1}]),
        ({"ratio": [0.1, 0.2]}, [{"ratio": 0.1}, {"ratio": 0.2}]),
        ({"layers": [0, 1]}, [{"layers": [0, 1]}]),
        ({"layers": [[0], [1, 2]]}, [{"layers": [0]}, {"layers": [1, 2]}]),
        ({"pairs": [[1, 2], [3, 4]]}, [{"pairs": [[1, 2], [3, 4]]}]),
        ({"pairs": [[[1, 2]], [[3, 4]]]}, [{"pairs": [[1, 2]]}, {"pairs": [[3, 4]]}]),
        ({"unknown": [1, 2]}, [{"unknown": [1, 2]}]),
        ({"ratio": []}, []),
    ],
)
def test_what_is_a_grid(table: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert [point.values for point in expand(table, Config)] == expected


def test_the_last_setting_varies_fastest() -> None:
    points = expand({"scope": ["layer", "global"], "ratio": [0.1, 0.2]}, Config)
    assert [point.suffix() for point in points] == [
        "[scope=layer,ratio=0.1]",
        "[scope=layer,ratio=0.2]",
        "[scope=global,ratio=0.1]",
        "[scope=global,ratio=0.2]",
    ]


def test_names_tell_only_what_varies() -> None:
    (point,) = expand({"ratio": [0.1], "scope": "layer"}, Config)
    assert point.suffix() == ""
    first, _ = expand({"layers": [[0, 1], [2]], "scope": "layer"}, Config)
    assert first.suffix() == "[layers=[0,1]]"


def suite_with(registry: Registry, **tables: Any) -> Any:
    base = {"name": "x", "metric": {"extracted": {}, "right": {}}, "testbed": {"noise": {"provider": "toy"}}}
    return load_suite({**base, **tables}, registry)


def test_equal_configurations_of_one_method_are_one(registry: Registry) -> None:
    suite = suite_with(registry, method={"cut": [{"ratio": [0.05, 0.1]}, {}, {"scope": "layer", "ratio": 0.1}]})
    assert [config.ratio for config in suite.methods[0].configs] == [0.05, 0.1]


def test_testbed_grids_are_named(registry: Registry) -> None:
    suite = suite_with(registry, testbed={"noise": {"provider": "toy", "layers": [2, 4], "size": ["quick"]}})
    assert [entry.name for entry in suite.testbeds] == ["noise[layers=2]", "noise[layers=4]"]
    assert [entry.config.layers for entry in suite.testbeds] == [2, 4]


def test_an_empty_list_is_no_configuration(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"method\.cut has an empty list"):
        suite_with(registry, method={"cut": {"ratio": []}})


def test_a_metric_has_no_grid_but_may_have_lists(registry: Registry) -> None:
    suite = suite_with(registry, metric={"extracted": {"lengths": [10, 20]}, "right": {}})
    assert suite.metrics[0].config.lengths == (10, 20)
    with pytest.raises(ConfigError, match=r"metric\.extracted\.prompt = \[32, 50\] is wrong"):
        suite_with(registry, metric={"extracted": {"prompt": [32, 50]}, "right": {}})
