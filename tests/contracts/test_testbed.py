"""What a method is shown: data that it does not declare raises at every use, and a whole testbed can be printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unmemorize import Testbed
from unmemorize.errors import UndeclaredNeedError
from unmemorize.testing import tiny_model, tiny_sequences


@pytest.mark.parametrize(
    "use", [str, "{}".format, print, len, list, bool, lambda data: data.tokens, lambda data: data[0]]
)
def test_any_use_of_undeclared_data_raises(use: Callable[[Any], Any]) -> None:
    sets = {name: tiny_sequences(4, seed=seed) for seed, name in enumerate(("forget", "retain"))}
    shown = Testbed(name="t", model=tiny_model("gpt2"), **sets).shown_to("mine", frozenset({"forget"}))
    assert len(shown.forget) == 4
    for data in (shown.retain, shown.holdouts):
        with pytest.raises(UndeclaredNeedError, match="'mine' used"):
            use(data)
    assert "<retain, which 'mine' does not declare>" in repr(shown)
