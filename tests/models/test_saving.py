"""What is saved is read again: it gives the same model back, or it is an error and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import toy_tokenizer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import DataError
from unmemorize.models import saving
from unmemorize.models.saving import save_model
from unmemorize.testing import tiny_model


def _mixture(model_type: str) -> Any:
    config = AutoConfig.for_model(
        model_type, vocab_size=29, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=16, moe_intermediate_size=16, num_experts=4, num_local_experts=4, head_dim=8,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def _retied(model: Any) -> Any:
    """Share the weights of a model whose config says that they are not: one of them is lost in the file."""
    model.lm_head.weight = model.model.embed_tokens.weight
    return model


def _untied(model: Any) -> Any:
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 2)
    return model


def _with_norm(model: Any) -> Any:
    model.model.norm.float()
    return model


def _saves_another(model: Any) -> Any:
    model.save_pretrained = tiny_model("llama", seed=1).save_pretrained
    return model


def _generates_strangely(model: Any) -> Any:
    model.generation_config.update(do_sample=False, temperature=0.5, top_p=0.1)
    return model


SAVED: dict[str, tuple[Callable[[], Any], bool | None]] = {
    "llama": (lambda: tiny_model("llama"), True),
    "tied": (lambda: tiny_model("gpt2"), True),
    "bfloat16": (lambda: tiny_model("llama").to(torch.bfloat16), True),
    "other names in files, in some versions": (lambda: tiny_model("gpt_neox"), None),
    "float16, tied": (lambda: tiny_model("gpt2").half(), True),
    "no longer tied": (lambda: _untied(tiny_model("gpt2")), False),
    "mixtral": (lambda: _mixture("mixtral"), False),
    "qwen3_moe": (lambda: _mixture("qwen3_moe"), False),
}


@pytest.mark.parametrize(("make", "by_name"), SAVED.values(), ids=SAVED)
def test_the_folder_gives_the_model_back(
    make: Callable[[], Any], by_name: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loaded = make(), []
    plain = saving._loaded
    monkeypatch.setattr(saving, "_loaded", lambda *given: loaded.append(1) or plain(*given))
    save_model(model, tmp_path / "saved", toy_tokenizer())
    assert by_name is None or bool(loaded) is not by_name  # ordinary models are compared without being built twice
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    assert again.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert again[name].dtype == value.dtype
        assert torch.equal(again[name], value)


LOST: dict[str, tuple[Callable[[], Any], str]] = {
    "a tied weight": (lambda: _retied(tiny_model("llama")), "(is missing|has other values|could not be saved)"),
    "a dtype": (lambda: _with_norm(tiny_model("llama").to(torch.bfloat16)), r"norm.weight is \(16,\) torch.bfloat16"),
    "the edit": (lambda: _saves_another(tiny_model("llama")), "has other values"),
    "generation settings": (lambda: _generates_strangely(tiny_model("llama")), "could not be saved"),
}


@pytest.mark.parametrize(("make", "said"), LOST.values(), ids=LOST)
@pytest.mark.filterwarnings("ignore:.*generation.*:UserWarning")
def test_a_folder_that_gives_another_model_back_is_removed(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as error:
        save_model(make(), tmp_path / "saved")
    assert error.value.fix
    assert not (tmp_path / "saved").exists()


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_without_its_base_is_not_saved_as_a_model(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(r=2, target_modules=["down_proj"]))
    with pytest.raises(DataError):
        save_model(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
