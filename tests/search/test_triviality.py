"""What can be guessed is distinguished from what must have been memorized."""

from __future__ import annotations

import pytest

from unmemorize.search.triviality import Trivial, copy_share


@pytest.mark.parametrize(
    ("prompt", "suffix", "share"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1.0),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 9], 0.5),
        ([1, 2, 3, 4], [4, 3, 2, 1, 0], 0.0),
        ([1, 2, 3, 4], [9, 1, 2, 3, 4, 9, 9, 9], 0.2),
        ([1, 2, 3], [1, 2, 3, 4], 0.0),  # the prompt holds no 4-gram
        ([1, 2, 3, 4], [1, 2, 3], 0.0),  # the suffix holds none
        ([7] * 32, [7] * 32, 1.0),
    ],
)
def test_the_copy_share(prompt: list[int], suffix: list[int], share: float) -> None:
    assert copy_share(prompt, suffix) == pytest.approx(share)


@pytest.mark.parametrize(
    ("copied", "distinct", "suffix", "expected"),
    [
        (0.0, 16, 32, False),
        (0.0, 15, 32, True),
        (0.25, 32, 32, True),
        (0.24, 32, 32, False),
        (0.0, 16, 64, False),
        (0.0, 8, 16, False),  # a shorter suffix needs half of its tokens distinct
        (0.0, 7, 16, True),
        (0.0, 1, 2, False),
        (0.0, 1, 1, False),
    ],
)
def test_the_defaults(copied: float, distinct: int, suffix: int, expected: bool) -> None:
    assert Trivial().applies(copied, distinct, suffix) is expected


def test_own_limits() -> None:
    assert Trivial(distinct=5).applies(0.0, 4, 32)
    assert not Trivial(distinct=5).applies(0.0, 5, 32)
    assert not Trivial(copy_share=0.5).applies(0.4, 20, 32)
    assert not Trivial(distinct=0).applies(0.0, 1, 32)
