"""Other settings are derived from a config's types and limits, and always validate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from unmemorize import StrictConfig
from unmemorize.registry.manager import Registry
from unmemorize.testing.variants import variants


class Kinds(StrictConfig):
    """One setting of each kind."""

    choice: Literal["a", "b", "c"] = "b"
    switch: bool = True
    count: Annotated[int, Field(ge=1)] = 5
    least: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    zero: Annotated[float, Field(ge=0, lt=1)] = 0.0
    perhaps: int | None = None
    table: dict[str, int] | None = {}  # noqa: RUF012 - pydantic copies defaults
    text: str = "AdamW"

    @model_validator(mode="after")
    def _together(self) -> Kinds:
        if self.choice == "c" and self.switch:
            raise ValueError("c needs the switch off")
        return self


def test_each_kind_of_setting_has_its_other_values() -> None:
    assert list(variants(Kinds, {})) == [
        ("choice", "a"), ("switch", False), ("count", 2), ("least", 2), ("share", 0.5), ("zero", 0.5),
        ("perhaps", 2), ("table", None),
    ]  # fmt: skip
    assert ("choice", "c") in list(variants(Kinds, {"switch": False}))


def test_every_variant_of_every_builtin_validates() -> None:
    registry = Registry.load("none")
    count = 0
    for kind in ("method", "metric"):
        for name in registry.names(kind):
            config: Any = registry.get(kind, name).Config
            for variant in variants(config, {}):
                assert getattr(config(**{variant.name: variant.value}), variant.name) != getattr(config(), variant.name)
                count += 1
    assert count > 100
