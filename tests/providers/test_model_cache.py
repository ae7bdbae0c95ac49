from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize import Context
from unmemorize_plugins.providers.model_cache import ModelCache
from unmemorize_plugins.providers.tinymem import TinyMem
from unmemorize_plugins.providers.tinymem.model import fresh_model

FACTS = {"epochs": 3, "loss": 0.25}


def build(seed: int = 0) -> PreTrainedModel:
    return fresh_model(TinyMem(width=16, heads=2, layers=1).config, Context(seed=seed))


def equal(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


WRITE_MANY = """
import sys, torch
from pathlib import Path
from unmemorize import Context
from unmemorize_plugins.providers.tinymem import TinyMem
from unmemorize_plugins.providers.model_cache import ModelCache
from unmemorize_plugins.providers.tinymem.model import fresh_model

torch.set_num_threads(1)
model = fresh_model(TinyMem(width=16, heads=2, layers=1).config, Context())
for _ in range(25):
    ModelCache(Path(sys.argv[1])).write(model, {"epochs": 3, "loss": 0.25})
"""
"""Run by several processes at once."""


def test_what_was_written_is_read(tmp_path: Path) -> None:
    cache, model, other = ModelCache(tmp_path / "a" / "b"), build(), build(1)
    cache.write(model, FACTS)
    assert not equal(model, other)
    assert cache.read(other) == FACTS
    assert equal(model, other)
    assert sorted(file.name for file in (tmp_path / "a" / "b").iterdir()) == [
        "facts.json",
        "model.safetensors",
    ]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b"]


def test_an_absent_folder_is_none(tmp_path: Path) -> None:
    assert ModelCache(tmp_path / "nothing").read(build()) is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", None),
        ("model.safetensors", b"cut"),
        ("facts.json", None),
        ("facts.json", b"{"),
        ("facts.json", b"[]"),
        ("facts.json", b"{}"),
        ("facts.json", b'{"weights": "0"}'),
    ],
)
def test_a_damaged_folder_is_none_and_is_replaced(tmp_path: Path, file: str, content: bytes | None) -> None:
    cache, model = ModelCache(tmp_path / "m"), build()
    cache.write(model, FACTS)
    if content is None:
        (tmp_path / "m" / file).unlink()
    else:
        (tmp_path / "m" / file).write_bytes(content)
    assert cache.read(build(1)) is None
    cache.write(model, FACTS)
    assert cache.read(build(1)) == FACTS
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_the_weights_of_another_architecture_are_none(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "m")
    cache.write(build(), FACTS)
    wide = fresh_model(TinyMem(width=32, heads=2, layers=1).config, Context())
    assert cache.read(wide) is None


def test_processes_that_write_at_once_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    started = [subprocess.Popen([sys.executable, "-c", WRITE_MANY, str(folder)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    model = build(1)
    assert ModelCache(folder).read(model) == FACTS
    assert equal(model, build(0))
    assert json.loads((folder / "facts.json").read_text())["epochs"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
