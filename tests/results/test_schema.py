from __future__ import annotations

import json
import math
import types
import typing

import polars as pl
import pytest

from unmemorize.results.record import PluginOrigin, Record, Value
from unmemorize.results.schema import SCHEMA, SCHEMA_VERSION, TEXT_COLUMNS, empty, from_row, to_frame, to_row

PLAIN = {str: pl.String, int: pl.Int64, float: pl.Float64}


def _expected(annotation: object) -> object:
    """The polars type that a field's annotation calls for, worked out independently of the schema."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return pl.String
    if typing.get_origin(annotation) is list:
        return pl.List(_expected(typing.get_args(annotation)[0]))
    if annotation in (Value, PluginOrigin):
        fields = typing.get_type_hints(annotation)
        return pl.Struct({name: _expected(fields[name]) for name in annotation.model_fields})
    return PLAIN[annotation]


@pytest.mark.parametrize("name", [name for name in Record.model_fields if name not in TEXT_COLUMNS])
def test_each_typed_column_follows_from_the_records_field(name):
    assert SCHEMA[name] == _expected(typing.get_type_hints(Record)[name])


def test_the_columns_are_the_records_fields_in_their_order():
    assert list(SCHEMA) == ["schema_version", *Record.model_fields]


def test_free_form_fields_are_text_and_nothing_else_is():
    hints = typing.get_type_hints(Record)
    free = {name for name in Record.model_fields if "dict" in str(hints[name])}
    assert free == TEXT_COLUMNS
    assert all(SCHEMA[name] == pl.String for name in TEXT_COLUMNS)


def test_a_record_survives_the_way_to_a_frame_and_back(make_record):
    record = make_record()
    frame = to_frame([record])
    assert dict(frame.schema) == dict(SCHEMA)
    assert from_row(frame.to_dicts()[0]) == record


def test_a_record_without_origin_survives(make_record):
    base = make_record(method="base", method_origin=None, stage="-")
    assert from_row(to_frame([base]).to_dicts()[0]).method_origin is None


def test_equal_configurations_are_equal_text_whatever_their_order(make_record):
    one = to_row(make_record(method_config={"a": 1, "b": 2}))
    other = to_row(make_record(method_config={"b": 2, "a": 1}))
    assert one["method_config"] == other["method_config"]


def test_numbers_that_are_not_finite_become_null(make_record, make_value):
    values = [make_value("perplexity", "holdout", math.inf), make_value("accuracy", "holdout", math.nan)]
    row = to_row(make_record(values=values, notes={"deep": [math.nan, {"x": math.inf}]}))
    assert [value["after"] for value in row["values"]] == [None, None]
    assert json.loads(row["notes"]) == {"deep": [None, {"x": None}]}


def test_notes_that_json_does_not_know_are_kept_as_text(make_record):
    assert json.loads(to_row(make_record(notes={"kind": 1 + 2j}))["notes"]) == {"kind": "(1+2j)"}


def test_an_empty_frame_has_every_column():
    assert dict(empty().schema) == dict(SCHEMA)
    assert empty().is_empty()


def test_every_row_names_its_schema_version(make_record):
    assert to_row(make_record())["schema_version"] == SCHEMA_VERSION
