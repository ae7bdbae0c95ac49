from __future__ import annotations

from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from unmemorize.contracts.config import StrictConfig
from unmemorize.results.keys import canonical
from unmemorize.suite.model import described, settings


class Colour(Enum):
    RED = "red"


class Inner(StrictConfig):
    steps: int = 1


class Config(StrictConfig):
    colour: Colour = Colour.RED
    corpus: Path = Path("data") / "corpus.txt"
    inner: Inner = Inner()
    free: dict[Any, Any] = {1: (2, 3)}  # noqa: RUF012 - pydantic copies defaults
    words: frozenset[str] = frozenset({"b", "c", "a"})
    nothing: int | None = None
    day: date = date(2025, 1, 2)


def test_settings_are_plain_json_with_every_default() -> None:
    plain = settings(Config())
    assert plain == {
        "colour": "red",
        "corpus": "data/corpus.txt",
        "inner": {"steps": 1},
        "free": {"1": [2, 3]},
        "words": ["a", "b", "c"],
        "nothing": None,
        "day": "2025-01-02",
    }


def test_settings_make_the_same_config_again() -> None:
    plain = settings(Config())
    assert Config(**{**plain, "free": {1: [2, 3]}}).words == Config().words
    assert Config(**plain).inner == Config().inner


@pytest.mark.parametrize(
    ("value", "text"),
    [({"b": 1, "a": [1.0, "ü"]}, '{"a":[1.0,"\\u00fc"],"b":1}'), ([], "[]"), (None, "null")],
)
def test_canonical_json(value: object, text: str) -> None:
    assert canonical(value) == text


def test_suites_are_named_with_their_file_if_there_is_one() -> None:
    assert described("quick", None) == "suite 'quick'"
    assert described("quick", Path("a.toml")) == "suite 'quick' (a.toml)"
