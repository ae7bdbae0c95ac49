"""Tiny testbeds of every architecture, with random weights; and one that was trained to memorize."""

from __future__ import annotations

import copy
import dataclasses

import pytest
from planted import build_planted

from unmemorize import Testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed
from unmemorize.testing.models import known_mlps


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest, registry: Registry) -> Testbed:
    """A tiny GPT-2, GPT-NeoX or Llama with sequences to forget and to retain."""
    model = tiny_model(request.param)
    return tiny_testbed(model, known_mlps(model, registry))


@pytest.fixture(scope="session")
def _trained_once() -> Testbed:
    return build_planted()


@pytest.fixture
def planted(_trained_once: Testbed, registry: Registry) -> Testbed:
    """A tiny GPT-2 that extracts every row to forget and knows the rule of all others; a fresh copy for each test."""
    model = copy.deepcopy(_trained_once.model)
    return dataclasses.replace(_trained_once, model=model, mlps=known_mlps(model, registry))
