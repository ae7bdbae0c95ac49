"""The names and shapes in a folder's files say the same of its MLPs as the model that is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from unmemorize.execution.architecture import find_mlps
from unmemorize.models.shapes import ListedMLP, listed_mlps
from unmemorize.registry import Registry
from unmemorize.testing import tiny_model


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "phi3", "gpt2 base", "two files"])
def test_they_say_what_the_loaded_model_says(kind: str, tmp_path: Path) -> None:
    registry = Registry.load()
    if kind == "phi3":  # gate and up in one parameter
        pytest.importorskip("transformers.models.phi3")
        from transformers import AutoConfig

        config = AutoConfig.for_model("phi3", vocab_size=29, hidden_size=16, num_hidden_layers=2, pad_token_id=0,
                                      num_attention_heads=2, num_key_value_heads=2, intermediate_size=24)  # fmt: skip
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = tiny_model("llama" if kind == "two files" else kind.split(maxsplit=1)[0])
    saved = model.transformer if kind == "gpt2 base" else model
    saved.save_pretrained(tmp_path, max_shard_size="10KB" if kind == "two files" else "1GB")
    assert (len([*tmp_path.glob("*.safetensors")]) > 1) is (kind == "two files")
    config = json.loads((tmp_path / "config.json").read_text())
    layout = registry.layout(config["model_type"])
    mlps = find_mlps(model, registry).mlps
    expected = [ListedMLP(mlp.layer, mlp.neurons, tuple(one.name for one in mlp.matrices)) for mlp in mlps]
    assert listed_mlps(tmp_path, config, layout) == expected != []
    assert listed_mlps(tmp_path, {**config, "num_hidden_layers": 99, "n_layer": 99}, layout) == []
    next(tmp_path.glob("*.safetensors")).write_bytes(b"damaged")
    assert listed_mlps(tmp_path, config, layout) == []
