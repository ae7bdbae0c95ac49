"""The base of every configuration: frozen, strict about unknown fields, described field by field."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictConfig(BaseModel):
    """A frozen pydantic model that forbids unknown fields.

    Write one sentence under each field: the docs, `unmemorize show NAME` and the JSON schema are made from them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
