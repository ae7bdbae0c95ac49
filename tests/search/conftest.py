"""Tiny models that regurgitate planted rows, and texts in which these rows stand among random ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unmemorize.contracts.testbed import Testbed
from unmemorize.testing.memorizing import LENGTH, NUMBERS, PROMPT, memorizing_testbed

BEFORE = 7
"""Random numbers in each document before its planted row."""

TestbedOf = Callable[[str], Testbed]


@pytest.fixture(scope="session")
def testbed_of() -> TestbedOf:
    """`testbed_of("gpt2")`: a tiny testbed whose model regurgitates its forget set. Not to be changed."""
    made: dict[str, Testbed] = {}

    def get(architecture: str) -> Testbed:
        if architecture not in made:
            made[architecture] = memorizing_testbed(architecture)  # type: ignore[arg-type]
        return made[architecture]

    return get


@pytest.fixture
def sizes() -> dict[str, Any]:
    """The lengths of the planted rows; every window is checked."""
    return {"prompt": PROMPT, "suffix": LENGTH - PROMPT, "stride": 1}


@pytest.fixture
def before() -> int:
    """The token offset of the planted row in each document that has one."""
    return BEFORE


@pytest.fixture
def texts_of() -> Callable[[Testbed], list[str]]:
    """Documents of random numbers; every second one, from the first on, has a planted row in it."""
    return _texts


@pytest.fixture
def folder(testbed_of: TestbedOf, tmp_path: Path) -> Path:
    """The documents around the planted rows of the tiny GPT-2, as files 00.txt, 01.txt and so on."""
    place = tmp_path / "texts"
    place.mkdir()
    for number, text in enumerate(_texts(testbed_of("gpt2"))):
        (place / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return place


def _texts(testbed: Testbed) -> list[str]:
    generator = random.Random(4)

    def noise(count: int) -> list[int]:
        return [generator.randrange(NUMBERS) for _ in range(count)]

    rows = [[*noise(BEFORE), *row, *noise(11)] for row in testbed.forget.tokens.tolist()]
    return [" ".join(map(str, row)) for planted in rows for row in (planted, noise(len(planted)))]
