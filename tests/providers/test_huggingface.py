from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from model_folders import save, toy_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize import Context, Evaluation, Testbed, UnmemorizeError, Window, run
from unmemorize.execution.export import rows as exported
from unmemorize.execution.runtime import load_testbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize_plugins.providers.huggingface import HuggingFace


def extractable_rows(model: Any, count: int, prompt: int, suffix: int) -> list[list[int]]:
    """Rows that the model regurgitates: random prompts, continued greedily one token at a time."""
    rows = torch.randint(3, 29, (count, prompt), generator=torch.Generator().manual_seed(7))
    for _ in range(suffix):
        rows = torch.cat([rows, model(rows).logits[:, -1:].argmax(-1)], dim=1)
    return rows.tolist()


def random_rows(count: int, length: int, seed: int) -> list[list[int]]:
    return torch.randint(3, 29, (count, length), generator=torch.Generator().manual_seed(seed)).tolist()


def write(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "forget": write(tmp_path / "forget.jsonl", random_rows(8, 12, 1)),
        "retain": write(tmp_path / "retain.jsonl", random_rows(20, 30, 2)),
    }


def settings(model: Path, files: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"model": str(model), **files, "prompt": 6, "text_length": 15, **more}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_the_model_regurgitates_is_extractable(
    architecture: Any, files: dict[str, str], tmp_path: Path, registry: Registry
) -> None:
    model = tiny_model(architecture)
    rows = extractable_rows(model, 4, 6, 6) + random_rows(4, 12, 3)
    provider = HuggingFace(
        **settings(save(model, tmp_path / "m"), files | {"forget": write(tmp_path / "f.jsonl", rows)})
    )
    testbed = load_testbed(provider, "mine", Context(), registry)
    assert len(testbed.mlps) == 2
    assert testbed.window == Window(6, 6)
    extraction = Evaluation(testbed).extraction("forget", testbed.window)
    extractable = dict(zip(extraction.ids.tolist(), extraction.extractable.tolist(), strict=True))
    firsts = {tuple(row): index for index, row in enumerate(testbed.forget.tokens.tolist())}
    for number, row in enumerate(rows):
        if tuple(row) in firsts:
            assert extractable[firsts[tuple(row)]] == (number < 4)


def test_facts_say_what_was_loaded(files: dict[str, str], tmp_path: Path) -> None:
    provider = HuggingFace(**settings(save(tiny_model("gpt2"), tmp_path / "m"), files, short_rows="drop", suffix=6))
    testbed = provider.load(Context())
    facts = testbed.facts
    assert facts["parameters"] == testbed.model.num_parameters()
    assert (facts["dtype"], facts["architecture"], facts["vocabulary"], facts["context"]) == ("float32", "gpt2", 29, 64)
    assert facts["devices"] == ["cpu"]
    assert facts["sources"] == provider.fingerprint()
    assert facts["rows"]["forget"] == 8
    assert json.loads(json.dumps(facts)) == facts
    assert testbed.recipe.learning_rate == 2e-5
    assert testbed.recipe.batch_size == 8
    assert testbed.tokenizer is None


def test_the_same_seed_gives_the_same_testbed(files: dict[str, str], tmp_path: Path) -> None:
    provider = HuggingFace(**settings(save(tiny_model("gpt2"), tmp_path / "m"), files, forget_unseen=0.25))
    digests = [provider.load(Context(seed=seed)).data_digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_fingerprint_follows_model_and_files(files: dict[str, str], tmp_path: Path) -> None:
    folder = save(tiny_model("gpt2"), tmp_path / "m")
    provider = HuggingFace(**settings(folder, files))
    first = provider.fingerprint()
    save(tiny_model("gpt2", seed=1), folder)
    second = provider.fingerprint()
    write(Path(files["forget"]), random_rows(8, 12, 9))
    third = provider.fingerprint()
    assert {name for name in first if first[name] != second[name]} == {"model"}
    assert {name for name in first if second[name] != third[name]} == {"forget"}


def test_texts_need_the_models_tokenizer(files: dict[str, str], tmp_path: Path) -> None:
    folder = save(tiny_model("gpt2"), tmp_path / "m")
    texts = [" ".join(f"w{3 + (7 * i + j) % 25}" for j in range(12)) for i in (1, 2)]
    text = write(tmp_path / "f.jsonl", [{"text": each} for each in texts])
    provider = HuggingFace(**settings(folder, files | {"forget": text}))
    with pytest.raises(UnmemorizeError, match="came without a tokenizer"):
        provider.load(Context())
    toy_tokenizer().save_pretrained(folder)
    testbed = provider.load(Context())
    assert testbed.forget.tokens[0, :3].tolist() == [10, 11, 12]
    assert testbed.tokenizer is not None


def test_an_exported_set_can_be_read_again(files: dict[str, str], tmp_path: Path) -> None:
    folder = save(tiny_model("gpt2"), tmp_path / "m")
    rows = [{"tokens": row, "clean_tokens": row[::-1], "copies": 3} for row in random_rows(5, 12, 4)]
    first = HuggingFace(**settings(folder, files | {"forget": write(tmp_path / "f.jsonl", rows)})).load(Context())
    again = write(tmp_path / "again.jsonl", list(exported(first.forget)))
    second = HuggingFace(**settings(folder, files | {"forget": again})).load(Context())
    assert first.forget.digest() == second.forget.digest()
    assert second.clean is not None


def without_mlps(folder: Path) -> Path:
    """A state-space model: no block of it has an MLP."""
    config = AutoConfig.for_model(
        "mamba", vocab_size=29, hidden_size=16, state_size=4, num_hidden_layers=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return save(AutoModelForCausalLM.from_config(config), folder)


def test_an_architecture_without_mlps_can_be_trained_and_says_why_not_edited(
    files: dict[str, str], tmp_path: Path, registry: Registry
) -> None:
    provider = HuggingFace(**settings(without_mlps(tmp_path / "m"), files))
    testbed = load_testbed(provider, "mine", Context(), registry)
    assert testbed.mlps == ()
    for name in ("balanced_subnet", "zero_out"):
        reason = registry.method(name)().supports(testbed)
        assert reason is not None
        assert "mamba" in reason
        assert "layout" in reason
    method = registry.method("extra")()
    assert method.supports(testbed) is None
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    method.apply(testbed.shown_to("extra", method.needs), Context())
    assert any(not torch.equal(before[name], value) for name, value in testbed.model.state_dict().items())


def test_a_whole_run(files: dict[str, str], tmp_path: Path) -> None:
    model = tiny_model("llama")
    forget = write(tmp_path / "f.jsonl", extractable_rows(model, 6, 6, 6))
    folder = save(model, tmp_path / "m")
    suite = {
        "name": "mine",
        "testbed": {"mine": {"provider": "huggingface", **settings(folder, files | {"forget": forget})}},
        "method": {"random_weights": {"ratio": 0.5}, "extra": {}},
        "metric": {"extraction": {}, "perplexity": {}},
        "seeds": [0],
    }
    results = run(suite, results=tmp_path / "results", device="cpu")
    assert set(results.frame["status"]) == {"done"}
    assert results.frame.height == 3
    again = run(suite, results=tmp_path / "results", device="cpu")
    assert again.report is not None
    assert again.frame.height == 3


def test_a_wrong_file_is_said_before_anything_is_loaded(files: dict[str, str], tmp_path: Path) -> None:
    suite = {
        "name": "mine",
        "testbed": {
            "mine": {"provider": "huggingface", **settings(tmp_path / "nowhere", files | {"forget": "gone.jsonl"})}
        },
        "method": {"random_weights": {}},
        "metric": {"extraction": {}, "perplexity": {}},
    }
    with pytest.raises(UnmemorizeError) as caught:
        run(suite, results=tmp_path / "results", device="cpu")
    assert "nowhere" in caught.value.what
    assert caught.value.fix


def test_the_testbed_is_whole(files: dict[str, str], tmp_path: Path) -> None:
    testbed = HuggingFace(**settings(save(tiny_model("gpt_neox"), tmp_path / "m"), files)).load(Context())
    assert isinstance(testbed, Testbed)
    assert testbed.extra is testbed.retain
    assert not testbed.trainable
    assert set(testbed.sets()) == {"forget", "retain", "extra", "holdout:text"}
