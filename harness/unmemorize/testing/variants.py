"""Settings other than the defaults, derived from a config's own types and limits."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import UnmemorizeError


class Variant(NamedTuple):
    """One setting at another valid value than usual."""

    name: str
    value: Any


def variants(config: type[StrictConfig], settings: Mapping[str, Any]) -> Iterator[Variant]:
    """Yield each choice of a `Literal`, each switch the other way round, each number once at another value.

    Only what validates is given, together with `settings`; numbers become smaller where they may, so that nothing takes
    longer. Texts, paths and tables are left alone: their meaning is not in their type.
    """
    usual = config(**settings)
    for name, field in config.model_fields.items():
        now = getattr(usual, name)
        for several in _candidates(field.annotation, now):
            valid = (value for value in several if value != now and _valid(config, {**settings, name: value}))
            yield from (Variant(name, value) for value in list(valid)[:1])


def _candidates(annotation: Any, now: Any) -> Iterator[tuple[Any, ...]]:
    """Yield values of a type, in groups of which one is enough, the preferred one first."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _candidates(arguments[0], now)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _candidates(argument, now)
    elif origin is Literal:
        yield from ((choice,) for choice in arguments)
    elif annotation is bool:
        yield (not now,)
    elif annotation is int:
        yield (now // 2, now - 1, now + 1) if isinstance(now, int) else (2, 1, 8)
    elif annotation is float:
        yield (now / 2, (1 + now) / 2, now + 1) if isinstance(now, (int, float)) else (0.5, 1.0)
    elif annotation is types.NoneType:
        yield (None,)


def _valid(config: type[StrictConfig], settings: Mapping[str, Any]) -> bool:
    try:
        config(**settings)
    except (ValidationError, UnmemorizeError):
        return False
    return True
