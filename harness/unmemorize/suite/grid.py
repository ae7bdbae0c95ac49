"""Grids: a list where a single value is meant stands for one configuration per value."""

from __future__ import annotations

import itertools
import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from unmemorize.contracts.config import StrictConfig


class Point(NamedTuple):
    """One point of a grid."""

    values: dict[str, Any]
    """The settings at this point, as written."""
    varied: dict[str, Any]
    """Those of them that the grid varies."""

    def suffix(self) -> str:
        """Return what tells this point from its neighbours: `[layers=2,size=quick]`, or nothing."""
        pairs = ",".join(f"{name}={_short(value)}" for name, value in self.varied.items())
        return f"[{pairs}]" if pairs else ""


def expand(table: Mapping[str, Any], config: type[StrictConfig]) -> Iterator[Point]:
    """Yield every point of the grid that `table` writes down, the last setting varying fastest.

    A value is a list of choices if it is nested one level deeper than the type of its field: for a number, a
    list; for a list of numbers, a list of lists.
    """
    choices = {name: _choices(value, config, name) for name, value in table.items()}
    for combination in itertools.product(*(choice.values for choice in choices.values())):
        values = dict(zip(choices, combination, strict=True))
        yield Point(values, {name: values[name] for name, choice in choices.items() if choice.varies})


def size(table: Mapping[str, Any], config: type[StrictConfig]) -> int:
    """Return how many points `expand` yields."""
    return math.prod(len(_choices(value, config, name).values) for name, value in table.items())


class Choice(NamedTuple):
    """The values that one setting takes in a grid."""

    values: Sequence[Any]
    varies: bool


def _choices(value: Any, config: type[StrictConfig], name: str) -> Choice:
    field = config.model_fields.get(name)
    listed = isinstance(value, (list, tuple))
    if field is None or not listed or value_depth(value) <= type_depth(field.annotation):
        return Choice([value], varies=False)
    return Choice(value, varies=len(value) > 1)


def value_depth(value: Any) -> int:
    """Return how many levels of lists `value` has."""
    if not isinstance(value, (list, tuple)):
        return 0
    return 1 + max(map(value_depth, value), default=0)


def type_depth(annotation: Any) -> int:
    """Return how many levels of lists a type takes: 0 for numbers, 1 for `tuple[int, ...]`."""
    annotation = getattr(annotation, "__value__", annotation)  # `type X = ...`
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_depth(arguments[0])
    if origin in (Union, types.UnionType):
        return max(map(type_depth, arguments))
    if _is_listlike(origin or annotation):
        return 1 + max((type_depth(argument) for argument in arguments if argument is not ...), default=0)
    return 0


def _is_listlike(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, (Sequence, Set)) and not issubclass(kind, (str, bytes))


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"))
