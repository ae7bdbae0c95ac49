"""What all tests share: no hub, a cache of their own, and the plugins that this repository ships."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere

import pytest
import torch

from unmemorize.registry.manager import Registry

torch.set_num_threads(1)  # tiny tensors: a second thread only waits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("UNMEMORIZE_PLUGINS", raising=False)


@pytest.fixture
def registry() -> Registry:
    """The plugins of this repository, and no others."""
    return Registry.load("none")
