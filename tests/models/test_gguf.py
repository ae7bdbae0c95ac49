from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unmemorize import UnmemorizeError
from unmemorize.errors import CacheWarning
from unmemorize.models import gguf as unpacking
from unmemorize.testing import tiny_model
from unmemorize.toolkit import ModelSource, model_fingerprint, open_model

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

IDS = torch.arange(3, 13)[None]
WORDS = ["<unk>", "<s>", "</s>", *(f"\u2581w{number}" for number in range(3, 29))]
PLAIN = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip
IN_BLOCK = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def name_in_gguf(name: str) -> str:
    name = name.removesuffix(".weight")
    if name in PLAIN:
        return f"{PLAIN[name]}.weight"
    _, _, layer, inside = name.split(".", 3)
    return f"blk.{layer}.{IN_BLOCK[inside]}.weight"


def interleaved(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Order rotary pairs as llama.cpp does: side by side, where transformers has two halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write_llama(model: Any, path: Path, architecture: str = "llama") -> Path:
    """Write a Llama model as GGUF, float32, with a small SentencePiece-style vocabulary."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([-float(number) for number in range(len(WORDS))])
    writer.add_token_types([2, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    for name, value in model.state_dict().items():
        weight = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = interleaved(weight, config.num_attention_heads if "q_" in name else config.num_key_value_heads)
        writer.add_tensor(name_in_gguf(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_model("llama")


@pytest.fixture
def file(llama: Any, tmp_path: Path) -> Path:
    return write_llama(llama, tmp_path / "tiny.gguf")


def test_a_gguf_file_gives_the_model_that_was_written(llama: Any, file: Path, tmp_path: Path) -> None:
    opened = open_model(ModelSource(model=str(file)), cache=tmp_path / "cache")
    assert torch.equal(opened.model(IDS).logits, llama(IDS).logits)
    assert opened.model.dtype == torch.float32
    assert opened.tokenizer.convert_ids_to_tokens([3, 4]) == ["▁w3", "▁w4"]
    opened.model(IDS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in opened.model.parameters())


def test_it_is_unpacked_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = ModelSource(model=str(file)), tmp_path / "cache"
    first = open_model(source, cache=cache)
    monkeypatch.setattr(unpacking, "_read", lambda *_: pytest.fail("unpacked again"))
    second = open_model(source, cache=cache)
    assert torch.equal(first.model(IDS).logits, second.model(IDS).logits)
    (folder,) = (cache / "models").iterdir()
    assert sorted(path.suffix for path in folder.iterdir() if path.stem == "model") == [".safetensors"]


def test_without_a_cache_nothing_stays(file: Path, llama: Any, tmp_path: Path) -> None:
    opened = open_model(ModelSource(model=str(file)))
    assert torch.equal(opened.model(IDS).logits, llama(IDS).logits)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_each_dtype_is_unpacked_for_itself(file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    opened = open_model(ModelSource(model=str(file), dtype="bfloat16"), cache=cache)
    assert opened.model.dtype == torch.bfloat16
    assert open_model(ModelSource(model=str(file)), cache=cache).model.dtype == torch.float32
    assert len(list((cache / "models").iterdir())) == 2


def test_the_fingerprint_is_the_content(file: Path, llama: Any, tmp_path: Path) -> None:
    first = model_fingerprint(ModelSource(model=str(file)))
    write_llama(llama, file)
    assert model_fingerprint(ModelSource(model=str(file))) == first
    write_llama(tiny_model("llama", seed=1), file)
    assert model_fingerprint(ModelSource(model=str(file))) != first


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("pointer", "git-lfs"),
        ("text", "is no GGUF file"),
        ("cut", "could not be unpacked"),
        ("unknown", "could not be"),
    ],
)
def test_damaged_files(damage: str, said: str, file: Path, llama: Any, tmp_path: Path) -> None:
    if damage == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif damage == "text":
        file.write_text("a page that says: log in first")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    else:
        write_llama(llama, file, "unheard_of")
    with pytest.raises(UnmemorizeError, match=said) as caught:
        open_model(ModelSource(model=str(file)), cache=tmp_path / "cache")
    assert caught.value.expected
    assert caught.value.fix
    assert not (tmp_path / "cache" / "models").is_dir() or not list((tmp_path / "cache" / "models").iterdir())


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_the_packages_that_read_it_are_an_extra(package: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = unpacking.importlib.util.find_spec
    monkeypatch.setattr(
        unpacking.importlib.util, "find_spec", lambda name, *rest: None if name == package else plain(name, *rest)
    )
    with pytest.raises(UnmemorizeError, match=f"needs the package {package}") as caught:
        open_model(ModelSource(model=str(file)))
    assert "unmemorize[gguf]" in caught.value.fix


def test_a_cache_that_cannot_be_written(file: Path, llama: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder is meant")
    with pytest.warns(CacheWarning, match=r"cannot be written .* UNMEMORIZE_CACHE"):
        opened = open_model(ModelSource(model=str(file)), cache=tmp_path / "cache")
    assert torch.equal(opened.model(IDS).logits, llama(IDS).logits)
