"""The pytest plugin: tiny testbeds as fixtures. It imports nothing heavy until a fixture is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed

_ARCHITECTURES = ("gpt2", "gpt_neox", "llama")
"""As in `unmemorize.testing.models`, which imports torch."""


@pytest.fixture(params=_ARCHITECTURES)
def memorizing_testbed(request: pytest.FixtureRequest) -> Testbed:
    """A tiny GPT-2, GPT-NeoX and Llama that regurgitate their whole forget set; a fresh copy for each test."""
    from unmemorize.testing.memorizing import memorizing_testbed

    return memorizing_testbed(request.param)


@pytest.fixture(params=_ARCHITECTURES)
def random_testbed(request: pytest.FixtureRequest) -> Testbed:
    """A tiny GPT-2, GPT-NeoX and Llama with random weights, around random sequences."""
    from unmemorize.testing.models import tiny_model, tiny_testbed

    return tiny_testbed(tiny_model(request.param))
