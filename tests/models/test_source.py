from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import save, toy_tokenizer
from transformers import GenerationConfig

from unmemorize import UnmemorizeError
from unmemorize.files import digests
from unmemorize.models.devices import checked_device, checked_map
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize.toolkit import ModelSource, model_fingerprint, open_model

IDS = torch.arange(3, 13)[None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_folder_gives_the_same_model(architecture: Any, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    opened = open_model(ModelSource(model=str(save(model, tmp_path / "m"))))
    assert torch.equal(opened.model(IDS).logits, model(IDS).logits)
    assert opened.tokenizer is None
    assert not opened.model.training
    assert opened.bounds()[:3] == (29, 64, 2)  # vocabulary, context, and the padding that its config names


def test_the_tokenizer_beside_the_model_comes_with_it(with_tokenizer: Path) -> None:
    opened = open_model(ModelSource(model=str(with_tokenizer)))
    assert opened.tokenizer("w3 w4")["input_ids"] == [3, 4]
    assert opened.tokenizer.pad_token is None
    assert opened.bounds().pad_id == 2  # the one of the config stands in


def test_padding_outside_the_vocabulary_is_not_used(folder: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # id 29, for which the model has no embedding
    tokenizer.save_pretrained(folder)
    opened = open_model(ModelSource(model=str(folder)))
    assert opened.tokenizer.pad_token_id == 29
    assert opened.bounds().pad_id == 2


def test_it_generates_greedily_whatever_it_came_with(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=9.0, eos_token_id=1, bos_token_id=0, pad_token_id=2
    )
    opened = open_model(ModelSource(model=str(save(model, tmp_path / "m"))))
    first, second = (opened.model.generate(IDS, max_new_tokens=8) for _ in range(2))
    assert torch.equal(first, second)
    step = int(opened.model(IDS).logits[0, -1].argmax())
    assert int(first[0, IDS.shape[1]]) == step
    assert opened.generation_config.repetition_penalty == 9.0


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.bfloat16), ("float32", torch.float32)])
def test_dtype(dtype: Any, expected: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    folder = save(model, tmp_path / "m")
    opened = open_model(ModelSource(model=str(folder), dtype=dtype))
    assert {parameter.dtype for parameter in opened.model.parameters()} == {expected}


def test_an_attention_kernel_can_be_chosen(folder: Path) -> None:
    opened = open_model(ModelSource(model=str(folder), attn_implementation="eager"))
    assert opened.model.config._attn_implementation == "eager"


def test_old_weight_files_are_read_without_pickled_code(tmp_path: Path) -> None:
    model = tiny_model("gpt_neox")
    folder = save(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    opened = open_model(ModelSource(model=str(folder)))
    assert torch.equal(opened.model(IDS).logits, model(IDS).logits)


def test_a_model_of_a_package_is_found_without_importing_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "ships_a_model"
    shutil.copytree(folder, package / "inner")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    opened = open_model(ModelSource(model="package:ships_a_model/inner"))
    assert opened.model.config.model_type == "gpt2"


def test_the_fingerprint_tells_contents_not_places(folder: Path, tmp_path: Path) -> None:
    first = model_fingerprint(ModelSource(model=str(folder)))
    copied = shutil.copytree(folder, tmp_path / "copy")
    (copied / "README.md").write_text("about")
    assert model_fingerprint(ModelSource(model=str(copied))) == first
    other = tiny_model("gpt2", seed=1)
    assert model_fingerprint(ModelSource(model=str(save(other, copied)))) != first


def test_a_large_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 4)
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF0000")
    read: list[Path] = []
    plain = digests._read
    monkeypatch.setattr(digests, "_read", lambda path: read.append(path) or plain(path))
    first = digests.content_digest(file)
    assert digests.content_digest(file) == first
    assert len(read) == 1
    file.write_bytes(b"GGUF0001")
    os.utime(file, ns=(1, 1))
    assert digests.content_digest(file) != first
    assert len(read) == 2


def test_a_damaged_memory_of_hashes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 4)
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF0000")
    first = digests.content_digest(file)
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    memory.write_text("{")
    assert digests.content_digest(file) == first


def test_a_cache_that_is_a_file_costs_only_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 4)
    (tmp_path / "cache").write_text("not a folder")
    monkeypatch.setenv("UNMEMORIZE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"GGUF0000")
    assert digests.content_digest(file) == digests.content_digest(file)


def test_remote_code_runs_only_where_it_is_trusted(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "strange",
        "architectures": ["Strange"],
        "auto_map": {"AutoConfig": "code.StrangeConfig", "AutoModelForCausalLM": "code.Strange"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class StrangeConfig(GPT2Config):\n    model_type = 'strange'\n"
        "class Strange(GPT2LMHeadModel):\n    config_class = StrangeConfig\n"
    )
    with pytest.raises(UnmemorizeError, match="trust_remote_code = true"):
        open_model(ModelSource(model=str(folder)))
    opened = open_model(ModelSource(model=str(folder), trust_remote_code=True))
    assert type(opened.model).__name__ == "Strange"
    assert torch.equal(opened.model(IDS).logits, tiny_model("gpt2")(IDS).logits)


def test_a_device_map_places_the_model(folder: Path) -> None:
    pytest.importorskip("accelerate")
    opened = open_model(ModelSource(model=str(folder), device_map={"": "cpu"}))
    assert torch.equal(opened.model(IDS).logits, tiny_model("gpt2")(IDS).logits)
    assert checked_map("auto") == "auto"
    assert checked_map("cpu") == "cpu"


def test_the_cpu_is_a_device() -> None:
    assert checked_device("cpu") == torch.device("cpu")
    assert checked_device("cpu:0").type == "cpu"
