"""What all tests share: no hub, a cache of their own, a tiny model in a folder, and the plugins that come along."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere

import pytest
import torch
from model_folders import save, toy_tokenizer

from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model

torch.set_num_threads(1)  # tiny tensors: a second thread only waits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("UNMEMORIZE_PLUGINS", raising=False)


@pytest.fixture
def registry() -> Registry:
    """The plugins of this repository, and no others."""
    return Registry.load("none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-2, without a tokenizer."""
    return save(tiny_model("gpt2"), tmp_path / "model")


@pytest.fixture
def with_tokenizer(folder: Path) -> Path:
    """The same model, with the toy tokenizer beside it."""
    toy_tokenizer().save_pretrained(folder)
    return folder
