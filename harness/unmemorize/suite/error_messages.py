"""Turns what is wrong with a suite into an error with its dotted path, the nearest right key, and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import ValidationError

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import ConfigError, PluginError, nearest
from unmemorize.suite.fields import REQUIRED, FieldFacts, describe_field, toml_literal
from unmemorize.suite.model import CallSettings, RunSettings

C = TypeVar("C", bound=StrictConfig)


class Place(NamedTuple):
    """Where in a suite something stands."""

    source: str
    """The suite, in words."""
    path: str
    """Dotted path of the table: `method.extra[1]`; nothing for the top."""
    shown: str = ""
    """The name whose settings `unmemorize show` lists."""

    def at(self, *keys: object) -> str:
        """Return suite and full dotted path of a key in this table."""
        return f"{self.source}: {self.dotted(*keys)}"

    def dotted(self, *keys: object) -> str:
        """Return the full dotted path of a key in this table; numbers stand in brackets."""
        path = self.path
        for key in keys:
            path += f"[{key}]" if isinstance(key, int) else f".{key}"
        return path.lstrip(".")

    @property
    def look(self) -> str:
        """The command that lists what may be written here."""
        return f"`unmemorize show {self.shown}` lists the settings" if self.shown else "see README, 'Suites'"


def validated(config: type[C], values: Mapping[str, Any], place: Place) -> C:
    """Return `config(**values)`.

    Raises:
        ConfigError: a wrong key, type or range, named by its full dotted path.
    """
    unknown = [key for key in values if key not in config.model_fields]
    if unknown:
        raise unknown_key(place, unknown[0], config.model_fields)
    try:
        return config.model_validate(dict(values))
    except ValidationError as error:
        raise _translated(config, error, place) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin's own code may run while its settings are read
        raise PluginError.raised(f"{place.source}: {config.__qualname__}", error) from error


def called(call: str, run: RunSettings | None = None, **said: Any) -> CallSettings:
    """Return what a call in Python says, and where it says none what `run` does.

    Args:
        call: the function, for errors.
        run: the settings of a suite.
        said: settings of `CallSettings`.

    Raises:
        ConfigError: a value of the wrong type, or out of its range.
    """
    own = {} if run is None else run.model_dump()
    given = {name: value for name, value in said.items() if value is not None}
    return validated(CallSettings, own | given, Place(f"{call}(...)", ""))


def unknown_key(place: Place, key: str, available: Iterable[str]) -> ConfigError:
    """Return the error for a key that no table of this kind has."""
    names = nearest(key, available)
    return ConfigError(
        f"{place.at(key)} is not a setting",
        expected=f"one of {', '.join(names)}" if names else "no settings at all",
        fix=f"write {place.dotted(names[0])}; {place.look}" if names else f"remove {place.dotted(key)}",
    )


def not_a_table(place: Place, value: object) -> ConfigError:
    """Return the error for a value where a table is meant."""
    return ConfigError(
        f"{place.source}: {place.path} = {_quoted(value)} is not a table",
        expected=f"a table: [{place.path}], with a setting on each line below it",
        fix=f"write [{place.path}] on a line of its own; {place.look}",
    )


def syntax_error(path: Path, error: ValueError) -> ConfigError:
    """Return the error for a file that is not TOML, as file:line:column."""
    message = str(error)
    found = re.search(r"\s*\(at line (\d+), column (\d+)\)", message)
    where = f":{found[1]}:{found[2]}" if found else ""
    said = message.replace(found[0], "") if found else message
    return ConfigError(
        f"{path}{where}: {said[:1].lower()}{said[1:]}",
        expected="valid TOML: key = value, text in quotes, lists in [brackets], tables under [headers]",
        fix=f"correct {path.name}{where}",
    )


def _translated(config: type[StrictConfig], error: ValidationError, place: Place) -> ConfigError:
    problems = error.errors(include_url=False)
    first = problems[0]
    field = _field_place(config, first["loc"])
    if first["type"] == "extra_forbidden":
        table = place._replace(path=place.dotted(*field.keys))
        return unknown_key(table, str(first["loc"][-1]), field.inside.model_fields)
    more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
    said = first["msg"].removeprefix("Value error, ")
    if not field.keys:
        what = f"{place.source}: {place.path}: {said}{more}".replace(": : ", ": ")
        return ConfigError(what, expected="settings that fit together", fix=place.look)
    if first["type"] == "missing":
        fix = f"write {place.dotted(*field.keys)} = ...; {place.look}"
        return ConfigError(f"{place.at(*field.keys)} is missing", expected=field.facts.expected(), fix=fix)
    return ConfigError(
        f"{place.at(*field.keys)} = {_quoted(first['input'])} is wrong: {said[:1].lower()}{said[1:]}{more}",
        expected=field.facts.expected(),
        fix=f"{_example(field, place)}; {place.look}",
    )


class _FieldPlace(NamedTuple):
    """Where in a config an error is."""

    owner: type[StrictConfig]
    """The config that has the innermost field."""
    inside: type[StrictConfig]
    """The config that this field holds, where it holds one; its owner otherwise."""
    keys: tuple[str | int, ...]

    @property
    def facts(self) -> FieldFacts:
        name = next(key for key in reversed(self.keys) if isinstance(key, str))
        return describe_field(name, self.owner.model_fields[name])


def _field_place(config: type[StrictConfig], location: tuple[str | int, ...]) -> _FieldPlace:
    owner, inside, keys = config, config, list[str | int]()
    for key in location:
        if isinstance(key, int):
            keys.append(key)
        elif key in inside.model_fields:  # anything else is the label that pydantic gives to a member of a union
            keys.append(key)
            owner, inside = inside, _nested(inside, key) or inside
    return _FieldPlace(owner, inside, tuple(keys))


def _nested(config: type[StrictConfig], key: str) -> type[StrictConfig] | None:
    field = config.model_fields.get(key)
    annotation = field.annotation if field else None
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, StrictConfig):
            return candidate
    return None


def _example(field: _FieldPlace, place: Place) -> str:
    facts = field.facts
    if facts.default in ("none", REQUIRED):
        return f"correct or remove {place.dotted(*field.keys)}"
    return f"write e.g. {facts.name} = {facts.default}"


def _quoted(value: object) -> str:
    text = toml_literal(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
