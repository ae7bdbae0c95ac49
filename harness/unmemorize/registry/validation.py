"""Checks that what a plugin registers keeps its contract: one rule, one sentence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from unmemorize.contracts import metric as metric_contract
from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.executor import ExecutorFactory
from unmemorize.contracts.layout import Layout
from unmemorize.contracts.method import STAGES, Method
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import NEEDS
from unmemorize.errors import PluginError, nearest
from unmemorize.evaluation.metric import Metric
from unmemorize.files.parsing import parsed
from unmemorize.registry.entries import Kind
from unmemorize.results.record import BASE

CONTRACTS: dict[Kind, type] = {
    "method": Method,
    "metric": Metric,
    "provider": ModelProvider,
    "executor": ExecutorFactory,
}
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SUITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SPOKEN_FOR = {"provider": "provider"}
"""Settings that a suite file itself uses in the table of a kind, so that no config may have them."""

POINTING: frozenset[Kind] = frozenset({"provider"})
"""Kinds whose configs may point at what only the user knows (a model, a file), so that settings may be required."""


class Broken(NamedTuple):
    """A rule that a registered class breaks."""

    problem: str
    expected: str
    fix: str


def checked_names(kind: Kind, value: object, plugin: str) -> tuple[str, ...]:
    """Return the names under which `value` is registered.

    Args:
        kind: what it is registered as.
        value: the class, or the path of a suite.
        plugin: the plugin's label, for errors.

    Raises:
        PluginError: it breaks the contract of its kind; the first broken rule is named.
    """
    if kind == "suite":
        return (_suite_name(value, plugin),)
    where = value.__qualname__ if isinstance(value, type) else f"{type(value).__name__}(...)"
    rules = _layout(value) if kind == "layout" else _broken_rules(kind, value)
    try:
        broken = next(rules, None)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's own code may run while its class is looked at
        raise PluginError.raised(f"{plugin}: {where}", error) from error
    if broken is not None:
        raise PluginError(f"{plugin}: {where} {broken.problem}", expected=broken.expected, fix=broken.fix)
    return value.model_types if isinstance(value, Layout) else (str(value.name),)  # type: ignore[attr-defined]


def _broken_rules(kind: Kind, value: object) -> Iterator[Broken]:
    if not isinstance(value, type) or not issubclass(value, CONTRACTS[kind]):
        yield _wrong_kind(kind, value)
        return
    yield from _abstract(value)
    yield from _name(kind, value)
    yield from RULES[kind](value)
    yield from _config(kind, value)


def _wrong_kind(kind: Kind, value: object) -> Broken:
    contract = CONTRACTS[kind].__name__
    is_class = isinstance(value, type)
    return Broken(
        f"is not a {contract}" if is_class else f"is an object of type {type(value).__name__}, not a class",
        f"a subclass of unmemorize.{contract}",
        f"write `class {value.__name__}({contract}):`"  # type: ignore[attr-defined]
        if is_class
        else f"return the classes themselves from register_{kind}s, without calling them",
    )


def _abstract(value: type) -> Iterator[Broken]:
    missing = sorted(getattr(value, "__abstractmethods__", ()))
    if missing:
        yield Broken(
            f"does not implement {', '.join(missing)}",
            f"every abstract method of {value.__mro__[1].__name__}",
            f"write `def {missing[0]}(self, ...)` in {value.__name__}",
        )


def _name(kind: Kind, value: type) -> Iterator[Broken]:
    name = getattr(value, "name", None)
    if not isinstance(name, str) or not SNAKE_CASE.fullmatch(name):
        said = "has no `name`" if name is None else f"has the name {name!r}"
        suggestion = _snake_case(name if isinstance(name, str) else value.__name__)
        yield Broken(said, "a `name` in snake_case", f'write `name = "{suggestion}"` in {value.__name__}')
    if kind == "method" and name == BASE:
        yield Broken(
            f"has the name {BASE!r}",
            f"any other name: {BASE!r} is the row of the unmitigated model",
            f"give {value.__name__} the name of its paper",
        )


def _snake_case(text: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_") or "my_name"


def _method(value: Any) -> Iterator[Broken]:
    yield from _one_of(value, "stage", STAGES)
    needs = getattr(value, "needs", None)
    if not isinstance(needs, (set, frozenset)):
        yield Broken(
            f"has needs = {needs!r}",
            f"a set out of {', '.join(NEEDS)}",
            f'write `needs = frozenset({{"forget"}})` in {value.__name__}',
        )
        return
    for need in sorted(map(str, needs - set(NEEDS))):
        near = nearest(need, NEEDS)
        yield Broken(
            f"needs {need!r}, which no testbed can show",
            f"out of {', '.join(near)}",
            f"write {near[0]!r} in its `needs`",
        )


def _metric(value: Any) -> Iterator[Broken]:
    yield from _one_of(value, "kind", get_args(metric_contract.Kind))
    yield from _one_of(value, "direction", get_args(metric_contract.Direction))
    limits = getattr(value, "range", None)
    numbers = isinstance(limits, tuple) and len(limits) == 2 and all(isinstance(x, (int, float)) for x in limits)
    if not numbers or not limits[0] < limits[1]:  # type: ignore[index]
        yield Broken(
            f"has range = {limits!r}",
            "a tuple of its lowest and its highest value",
            f"write e.g. `range = (0.0, 100.0)` in {value.__name__}",
        )


def _one_of(value: type, attribute: str, allowed: tuple[str, ...]) -> Iterator[Broken]:
    given = getattr(value, attribute, None)
    if given not in allowed:
        yield Broken(
            f"has {attribute} = {given!r}" if given is not None else f"has no `{attribute}`",
            f"one of {', '.join(nearest(str(given), allowed))}",
            f'write `{attribute} = "{nearest(str(given), allowed)[0]}"` in {value.__name__}',
        )


def _no_rules(_: Any) -> Iterator[Broken]:
    yield from ()


RULES: dict[Kind, Callable[[Any], Iterator[Broken]]] = {
    "method": _method,
    "metric": _metric,
    "provider": _no_rules,
    "executor": _no_rules,
}


def _config(kind: Kind, value: Any) -> Iterator[Broken]:
    config = getattr(value, "Config", None)
    if not isinstance(config, type) or not issubclass(config, StrictConfig):
        yield Broken(
            f"has a Config that is {config!r}",
            "a subclass of unmemorize.StrictConfig",
            f"write `class Config(StrictConfig):` in {value.__name__}",
        )
        return
    if not config.__pydantic_complete__ and not config.model_rebuild(raise_errors=False):
        yield Broken(
            "has settings of a type that cannot be found",
            "types that are imported whenever the module is",
            f"import the types of the fields of {config.__qualname__} outside of `if TYPE_CHECKING:`",
        )
        return
    for name, field in config.model_fields.items():
        if field.is_required() and kind not in POINTING:
            yield Broken(
                f"has the setting {name!r} without a default",
                "a default for every setting, so that a name alone is a runnable configuration",
                f"write `{name}: ... = <default>` in {config.__qualname__}",
            )
        if SPOKEN_FOR.get(kind) == name:
            yield Broken(
                f"has a setting called {name!r}, which suite files use themselves",
                "another name",
                f"rename {name!r} in {config.__qualname__}",
            )
    if kind in ("method", "metric"):
        yield from _valid_defaults(config)


def _valid_defaults(config: type[StrictConfig]) -> Iterator[Broken]:
    try:
        config()
    except ValueError as error:
        first = str(error).partition("\n")[2].replace("\n", " ") or str(error)
        yield Broken(
            f"has defaults that do not validate: {first}",
            "defaults within their own ranges",
            f"correct the defaults in {config.__qualname__}",
        )


def _layout(value: object) -> Iterator[Broken]:
    if not isinstance(value, Layout):
        yield Broken(
            "is not a Layout",
            "rows: objects of unmemorize.Layout",
            'return e.g. [Layout(model_types=("mine",), blocks="model.layers", mlps=(("mlp.up", "mlp.down"),))]',
        )
        return
    if not _names(value.model_types):
        yield Broken(
            f"has model_types = {value.model_types!r}",
            "a tuple of the values of `config.model_type` that it describes",
            'write e.g. `model_types=("gpt2",)`; one type needs the comma, too',
        )
    if not isinstance(value.blocks, str) or not value.blocks:
        yield Broken(
            f"has blocks = {value.blocks!r}",
            "the name of the model's list of transformer blocks",
            'write e.g. `blocks="model.layers"`',
        )
    if not isinstance(value.mlps, tuple) or not value.mlps or not all(_names(mlp, (2, 3)) for mlp in value.mlps):
        yield Broken(
            f"has mlps = {value.mlps!r}",
            "a tuple of MLPs, each a tuple of two or three names in a block: (up, down) or (gate, up, down)",
            'write e.g. `mlps=(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),)`; one MLP needs the comma, too',
        )
    for field in ("heads", "attention"):
        if getattr(value, field) and not _names(getattr(value, field)):
            yield Broken(
                f"has {field} = {getattr(value, field)!r}",
                "a tuple of names in a block",
                f'write e.g. `{field}=("self_attn.o_proj",)`; one name needs the comma, too',
            )


def _names(value: object, lengths: tuple[int, ...] = ()) -> bool:
    """Whether a value is a tuple of names, as many as one of `lengths` says."""
    named = isinstance(value, tuple) and bool(value) and all(isinstance(name, str) and name for name in value)
    return named and (not lengths or len(value) in lengths)  # type: ignore[arg-type]


def _suite_name(value: object, plugin: str) -> str:
    path = Path(value) if isinstance(value, (str, Path)) else None
    if path is None or not path.is_file():
        raise PluginError(
            f"{plugin}: register_suites returned {str(value)!r}, which is no file",
            expected="paths of TOML files",
            fix='return e.g. [Path(__file__).with_name("suite.toml")], and ship the file in the wheel',
        )
    try:
        name = parsed(tomllib.loads, path.read_text(encoding="utf-8-sig")).get("name")
    except ValueError as error:
        raise PluginError(
            f"{plugin}: the suite file {path} cannot be read: {error}",
            expected="valid TOML",
            fix=f"correct {path.name}",
        ) from error
    if not isinstance(name, str) or not SUITE_NAME.fullmatch(name):
        raise PluginError(
            f"{plugin}: the suite file {path} has " + ("no `name`" if name is None else f"the name {name!r}"),
            expected="a `name` of letters, digits, '.', '_' and '-'",
            fix=f'write e.g. name = "{path.parent.name}" on its first line',
        )
    return name
