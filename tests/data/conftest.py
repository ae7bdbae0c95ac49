"""A tiny model in a folder, and files of sequences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from model_folders import save, toy_tokenizer

from unmemorize.testing import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny GPT-2, without a tokenizer."""
    return save(tiny_model("gpt2"), tmp_path / "model")


@pytest.fixture
def with_tokenizer(folder: Path) -> Path:
    """The same model, with the toy tokenizer beside it."""
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as JSON lines and returns the path."""

    def write(rows: Sequence[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
