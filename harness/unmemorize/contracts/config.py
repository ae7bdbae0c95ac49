"""The base of every configuration: frozen, strict about unknown fields and about numbers, described field by field."""

from __future__ import annotations

import math
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

LARGEST: Final = 2**63 - 1
"""The largest integer that records and tables hold."""

_VALUES = frozenset({"default", "expected", "metadata", "serialization"})
"""What in a schema is no schema."""


def _strict(schema: Any) -> Any:
    """Return a schema in which numbers and bools are taken for nothing else; texts for paths, lists for tuples stay."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(map(_strict, schema))
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")  # a mapping of names to schemas has none, or that of a field that is called so
    strict = {key: item if isinstance(kind, str) and key in _VALUES else _strict(item) for key, item in schema.items()}
    if kind == "literal" and not any(isinstance(value, bool) for value in schema["expected"]):
        return no_info_before_validator_function(_no_bool, strict)  # True equals 1
    return strict | {"strict": True} if kind in ("int", "float", "bool") else strict


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a bool is none of these values")
    return value


def check_numbers(value: object) -> None:
    """Refuse numbers that no record holds, in lists and tables as well.

    Raises:
        ValueError: NaN, infinity, or an integer beyond 64 bits.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
        raise ValueError("the integer is beyond the 64 bits that records hold")
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            check_numbers(item)
    if isinstance(value, dict):
        for item in value.values():
            check_numbers(item)


class StrictConfig(BaseModel):
    """A frozen pydantic model that forbids unknown fields.

    Numbers are numbers: no field takes a text or a bool for one, a number for a bool, NaN, infinity, or an integer
    beyond 64 bits, which no record holds.

    Write one sentence under each field: the docs, `unmemorize show NAME` and the JSON schema are made from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        strict: CoreSchema = _strict(handler(source))
        return strict

    @field_validator("*", mode="after")
    @classmethod
    def _holds_what_records_hold(cls, value: object) -> object:
        check_numbers(value)
        return value
