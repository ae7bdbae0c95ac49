from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from huggingface_hub import constants
from model_folders import lay_out_as_hub
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import Context, Evaluation, Window
from unmemorize.execution.runtime import load_testbed
from unmemorize.registry.manager import Registry
from unmemorize_plugins.providers.pythia import Pythia

COMMIT = "c" * 40
END, PADDING = "<|endoftext|>", "<|padding|>"
CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 256, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 3,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 384,
}  # fmt: skip
"""The keys of Pythia's own configuration; width, depth and vocabulary are smaller."""


def write_tokenizer(folder: Path) -> None:
    """Pythia's kind of tokenizer: byte-level BPE, the end of text as id 0, fewer ids than embeddings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END, PADDING], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the model that memorized the text of the model"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "add_prefix_space": False, "bos_token": END, "eos_token": END, "unk_token": END,
        "name_or_path": "EleutherAI/gpt-neox-20b", "tokenizer_class": "GPTNeoXTokenizer",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    special = {"bos_token": END, "eos_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))


def write_weights(folder: Path) -> Any:
    """Weights as the older checkpoints have them: half precision, torch's format, buffers that no longer exist."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {name: value for name, value in CONFIG.items() if name not in ("model_type", "torch_dtype")}
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("gpt_neox", **settings | {"initializer_range": 0.3})
        )
    weights = {name: value.half() for name, value in model.state_dict().items()}
    for layer in range(3):
        attention = f"gpt_neox.layers.{layer}.attention"
        weights[f"{attention}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        weights[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        weights[f"{attention}.rotary_emb.inv_freq"] = torch.ones(1)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return model.half().float().eval()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model that lies in a hub cache as EleutherAI/pythia-70m-deduped at its last step."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    snapshot = lay_out_as_hub(cache, "EleutherAI/pythia-70m-deduped", "step143000", COMMIT)
    write_tokenizer(snapshot)
    return write_weights(snapshot)


def extractable(model: Any, count: int, prompt: int, suffix: int) -> list[list[int]]:
    rows = torch.randint(2, 300, (count, prompt), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _ in range(suffix):
            rows = torch.cat([rows, model(rows).logits[:, -1:].argmax(-1)], dim=1)
    return rows.tolist()


@pytest.fixture
def evals(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Sequences that the model regurgitates, in files named and laid out as the data set's."""
    rows = extractable(model, 12, 32, 32)
    data = tmp_path / "evals"
    data.mkdir()
    for part, some in enumerate((rows[:6], rows[6:])):
        indices = [1000 * part + number for number in range(6)]
        frame = pl.DataFrame(
            {"index": indices, "tokens": some, "__index_level_0__": indices},
            schema={"index": pl.Int64, "tokens": pl.List(pl.Int64), "__index_level_0__": pl.Int64},
        )
        frame.write_parquet(data / f"deduped.70m-0000{part}-of-00002-0123456789abcdef.parquet")
    scan = pl.scan_parquet

    def local(path: str, **more: Any) -> Any:
        there = "hf://datasets/EleutherAI/pythia-memorized-evals/data"
        assert str(path).startswith(there)
        return scan(str(path).replace(there, str(data)), **more)

    monkeypatch.setattr(pl, "scan_parquet", local)
    return rows


@pytest.mark.usefixtures("evals")
def test_a_cached_model_and_the_data_sets_columns(model: Any, registry: Registry) -> None:
    provider = Pythia(size="70m", retain="python-docs", text_rows=16, dtype="float32")
    testbed = load_testbed(provider, "pythia", Context(), registry)
    assert testbed.window == Window(32, 32)
    assert len(testbed.mlps) == 3
    assert testbed.pad_id in (0, 1)
    ids = torch.arange(1, 30)[None]
    assert torch.equal(testbed.model(ids).logits, model(ids).logits)
    assert Evaluation(testbed).extraction("forget", testbed.window).extractable.all()
    assert testbed.facts["rows"] == {"forget": 12, "retain": 16, "text": testbed.facts["rows"]["text"]}
    assert testbed.facts["vocabulary"] == 384
    assert len(testbed.tokenizer) < 384


def test_it_comes_in_the_precision_in_which_it_was_saved(evals: list[list[int]]) -> None:
    testbed = Pythia(size="70m", retain="python-docs", text_rows=4).load(Context())
    assert testbed.facts["dtype"] == "float16"
    assert len(testbed.forget) == len(evals)


def test_rows_of_the_data_set_are_drawn(evals: list[list[int]]) -> None:
    provider = Pythia(size="70m", retain="python-docs", text_rows=4, max_rows=5)
    drawn = [provider.load(Context(seed=seed)).forget.tokens.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(row in evals for row in drawn[0])


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_the_papers_files_of_eighty_tokens(suffix: str, model: Any, tmp_path: Path) -> None:
    import numpy as np

    rows = torch.tensor(extractable(model, 5, 32, 48))
    path = tmp_path / f"memorized{suffix}"
    torch.save(rows, path) if suffix == ".pt" else np.save(path, rows.numpy())
    provider = Pythia(size="70m", forget=str(path), suffix=40, retain="python-docs", text_rows=4, dtype="float32")
    testbed = provider.load(Context())
    assert testbed.window == Window(32, 40)
    assert testbed.forget.tokens.shape == (5, 80)
    assert Evaluation(testbed).extraction("forget", testbed.window).extractable.all()


@pytest.mark.parametrize(
    ("settings", "model_id", "revision", "split"),
    [
        ({}, "EleutherAI/pythia-2.8b-deduped", "step143000", "data/deduped.2.8b-*.parquet"),
        (
            {"size": "12b", "deduped": False, "step": 512},
            "EleutherAI/pythia-12b",
            "step512",
            "data/duped.12b-*.parquet",
        ),
        ({"size": "1b", "step": 0}, "EleutherAI/pythia-1b-deduped", "step0", "data/deduped.1b-*.parquet"),
    ],
)
def test_names_on_the_hub(settings: dict[str, Any], model_id: str, revision: str, split: str) -> None:
    provider = Pythia(**settings, dtype="bfloat16")
    source = provider.model_source()
    assert (source.model, source.revision, source.dtype) == (model_id, revision, "bfloat16")
    assert provider.sequence_source().forget.endswith(split)


@pytest.mark.usefixtures("evals")
def test_the_fingerprint_names_commit_and_data_set() -> None:
    fingerprint = Pythia(size="70m", retain="python-docs").fingerprint()
    assert fingerprint["model"] == f"EleutherAI/pythia-70m-deduped@{COMMIT}"
    assert fingerprint["forget"].startswith("hf://datasets/EleutherAI/pythia-memorized-evals/data/deduped.70m-")
    assert len(fingerprint["retain"]) == 32


@pytest.mark.parametrize(("step", "near"), [(36_500, "36000 and 37000"), (3, "2 and 4"), (700, "512 and 1000")])
def test_steps_without_a_checkpoint(step: int, near: str) -> None:
    with pytest.raises(ValidationError, match=near):
        Pythia(step=step)
