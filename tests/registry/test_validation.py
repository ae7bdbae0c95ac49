from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.executor import ExecutorFactory
from unmemorize.contracts.layout import Layout
from unmemorize.contracts.method import Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.errors import NameCollisionError, PluginError
from unmemorize.evaluation.metric import Metric
from unmemorize.registry import Registry
from unmemorize.registry.hookspecs import hookimpl
from unmemorize.registry.validation import checked_names

if TYPE_CHECKING:
    from fractions import Fraction


class GoodMethod(Method):
    name, stage = "good_method", "unlearn"

    def apply(self, testbed: Any, context: Any) -> None: ...


class GoodMetric(Metric):
    name, kind, direction, range = "good", "memorization", "lower", (0.0, 100.0)

    def measure(self, evaluation: Any) -> Any: ...


class GoodProvider(ModelProvider):
    name = "good"

    def load(self, context: Any) -> Any: ...


class GoodExecutor(ExecutorFactory):
    name = "good"

    def create(self) -> Any: ...


GOOD_LAYOUT = Layout(model_types=("one", "two"), blocks="h", mlps=(("up", "down"),))


class NoDefault(StrictConfig):
    ratio: float


class WrongDefault(StrictConfig):
    ratio: Annotated[float, Field(gt=0)] = -1.0


class TakesProvider(StrictConfig):
    provider: str = "x"


class UnknownType(StrictConfig):
    ratio: Fraction = 0.5  # type: ignore[assignment]


def variant(base: type, **attributes: Any) -> type:
    return type("Variant", (base,), attributes)


def error_of(kind: Any, value: object) -> PluginError:
    with pytest.raises(PluginError) as caught:
        checked_names(kind, value, "plugin 'p' (d 1)")
    assert caught.value.what.startswith("plugin 'p' (d 1): ")
    return caught.value


def test_good_classes_give_their_names() -> None:
    assert checked_names("method", GoodMethod, "") == ("good_method",)
    assert checked_names("metric", GoodMetric, "") == ("good",)
    assert checked_names("provider", GoodProvider, "") == ("good",)
    assert checked_names("layout", GOOD_LAYOUT, "") == ("one", "two")


def test_a_provider_may_point_at_what_only_the_user_knows() -> None:
    assert checked_names("provider", variant(GoodProvider, Config=NoDefault), "") == ("good",)


WRONG = [
    ("method", GoodMetric, "GoodMetric is not a Method", "class GoodMetric(Method)"),
    ("method", GoodMethod(), "is an object of type GoodMethod, not a class", "without calling them"),
    ("method", variant(Method, name="x", stage="unlearn"), "Variant does not implement apply", "def apply"),
    ("method", variant(GoodMethod, name="GoodName"), "has the name 'GoodName'", 'name = "good_name"'),
    ("method", variant(GoodMethod, name="1st"), "has the name '1st'", "write `name ="),
    ("method", variant(GoodMethod, name=None), "has no `name`", 'name = "variant"'),
    ("method", variant(GoodMethod, name="base"), "has the name 'base'", "the name of its paper"),
    ("method", variant(GoodMethod, stage="unlern"), "has stage = 'unlern'", 'stage = "unlearn"'),
    ("method", variant(GoodMethod, needs={"forgot"}), "needs 'forgot'", "'forget'"),
    ("method", variant(GoodMethod, needs="forget"), "has needs = 'forget'", "frozenset"),
    ("method", variant(GoodMethod, Config=dict), "a Config that is", "class Config(StrictConfig)"),
    ("method", variant(GoodMethod, Config=NoDefault), "the setting 'ratio' without a default", "ratio: ..."),
    (
        "method",
        variant(GoodMethod, Config=WrongDefault),
        "defaults that do not validate: ratio",
        "WrongDefault",
    ),
    ("method", variant(GoodMethod, Config=UnknownType), "of a type that cannot be found", "`if TYPE_CHECKING:`"),
    ("metric", variant(GoodMetric, kind="memory"), "has kind = 'memory'", 'kind = "memorization"'),
    ("metric", variant(GoodMetric, direction="down"), "has direction = 'down'", "direction ="),
    ("metric", variant(GoodMetric, range=(1.0, 0.0)), "has range = (1.0, 0.0)", "range = (0.0, 100.0)"),
    ("metric", variant(GoodMetric, range=3), "has range = 3", "range ="),
    ("executor", variant(GoodExecutor, Config=NoDefault), "'ratio' without a default", "ratio"),
    (
        "provider",
        variant(GoodProvider, Config=TakesProvider),
        "setting called 'provider'",
        "rename 'provider'",
    ),
    ("layout", replace(GOOD_LAYOUT, model_types="gpt2"), "has model_types = 'gpt2'", '("gpt2",)'),
    ("layout", replace(GOOD_LAYOUT, model_types=()), "has model_types = ()", "model_types"),
    ("layout", replace(GOOD_LAYOUT, blocks=""), "has blocks = ''", 'blocks="model.layers"'),
    ("layout", replace(GOOD_LAYOUT, mlps=("up", "down")), "has mlps = ('up', 'down')", "one MLP needs the comma"),
    ("layout", replace(GOOD_LAYOUT, mlps=(("up",),)), "has mlps = (('up',),)", "mlp.down_proj"),
    ("layout", replace(GOOD_LAYOUT, heads="qkv"), "has heads = 'qkv'", "one name needs the comma"),
    ("layout", Layout, "Layout is not a Layout", "return e.g. [Layout("),
]


@pytest.mark.parametrize(("kind", "value", "what", "fix"), WRONG)
def test_each_rule_names_the_class_and_the_fix(kind: str, value: object, what: str, fix: str) -> None:
    error = error_of(kind, value)
    assert what in error.what
    assert fix in error.fix
    assert error.expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name = ", "cannot be read"),
        ("x = 1", "has no `name`"),
        ("name = 'a b'", "has the name 'a b'"),
    ],
)
def test_a_wrong_suite_file(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    assert what in error_of("suite", path).what


def test_a_suite_is_known_by_the_name_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("name = 'mine'")
    registry = Registry()
    registry.add(SimpleNamespace(register_suites=hookimpl(lambda: [path])))
    assert registry.suite("mine") == path


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    assert "which is no file" in error_of("suite", tmp_path / "none.toml").what
    assert "which is no file" in error_of("suite", 3).what


@pytest.mark.parametrize("returned", [None, GoodMethod, 3])
def test_a_hook_must_return_an_iterable(returned: object) -> None:
    with pytest.raises(PluginError, match="register_methods failed: TypeError") as caught:
        Registry().add(SimpleNamespace(register_methods=hookimpl(lambda: returned)))
    assert "return [MyClass]" in caught.value.fix


class Untold(BaseException):
    """One whose text raises."""

    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("error", "said"),
    [(RuntimeError("r"), "RuntimeError: r"), (SystemExit(0), "SystemExit: 0"), (Untold(), "Untold: (its text raised")],
)
def test_settings_and_hooks_that_raise_or_exit_are_a_plugins_error(error: BaseException, said: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    class Config(StrictConfig):
        __init__ = fail

    assert f"Variant raised {said}" in error_of("method", variant(GoodMethod, Config=Config)).what
    with pytest.raises(PluginError, match="register_methods failed") as caught:
        Registry().add(SimpleNamespace(register_methods=hookimpl(fail)))
    assert said in caught.value.what


def test_one_plugin_may_not_register_a_name_twice() -> None:
    with pytest.raises(NameCollisionError, match=r"plugin 'mine' .* twice"):
        Registry().add(
            SimpleNamespace(register_methods=hookimpl(lambda: [GoodMethod, variant(GoodMethod)])), name="mine"
        )
