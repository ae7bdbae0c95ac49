"""A TinyMem so small that it trains in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from unmemorize_plugins.providers.tinymem import TinyMem

RECIPE = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "weight_decay": 0.1, "warmup_steps": 5}
TINY: dict[str, Any] = {
    "length": 6,
    "main_sequences": 40,
    "extra_sequences": 12,
    "extra_constants": (2, 3),
    "holdout_sequences": 4,
    "noised_sequences": 10,
    "clean_values": 0,
    "duplication": 3,
    "layers": 1,
    "heads": 2,
    "width": 32,
    "context": 48,
}


@pytest.fixture
def make_tiny() -> Callable[..., TinyMem]:
    def make(recipe: dict[str, Any] | None = None, **changes: Any) -> TinyMem:
        return TinyMem(**TINY | changes, recipe=RECIPE | (recipe or {}))

    return make


@pytest.fixture
def read() -> Callable[[Any], str]:
    """Turns token ids into the characters they stand for."""
    return lambda tokens: "".join("0123456789^$ _"[int(token)] for token in tokens)
