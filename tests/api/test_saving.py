"""A mitigated model saved: plain transformers loads it, and its card and report tell the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import unmemorize
from unmemorize import DataError, Mitigation
from unmemorize.registry.manager import Registry
from unmemorize.testing import tiny_model, tiny_sequences


def own_words(model: torch.nn.Module, count: int = 6) -> list[list[int]]:
    """The model's own continuations of random prompts: they are extractable by construction."""
    ids = tiny_sequences(count, seed=5).tokens[:, :4]
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids.tolist()


@pytest.fixture
def mitigation(registry: Registry) -> Mitigation:
    model = tiny_model("llama")
    return unmemorize.mitigate(
        model, method="durable", ratio=0.3, forget=own_words(model), retain=tiny_sequences(9, seed=6), prompt=4,
        registry=registry, seed=5,
    )  # fmt: skip


def test_plain_transformers_loads_what_was_saved(mitigation: Mitigation, tmp_path: Path) -> None:
    written = mitigation.save(tmp_path / "out")
    assert {"README.md", "config.json", "edits.safetensors", "mitigation.json", "model.safetensors"} <= {
        path.name for path in written
    }
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in mitigation.model.state_dict().items())


def test_the_edit_is_made_again_on_the_base_model(mitigation: Mitigation, tmp_path: Path) -> None:
    mitigation.save(tmp_path / "out")
    base = tiny_model("llama")
    assert unmemorize.apply_edits(base, tmp_path / "out" / "edits.safetensors") == mitigation.edited
    assert all(torch.equal(v, base.state_dict()[k]) for k, v in mitigation.model.state_dict().items())


def test_the_report_says_everything(mitigation: Mitigation, tmp_path: Path) -> None:
    mitigation.save(tmp_path / "out", source={"model": "my/base", "forget set": "mine.jsonl, 6 sequences"})
    report = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    assert report["method"]["name"] == "durable"
    assert report["method"]["config"]["ratio"] == 0.3
    assert (report["method"]["seed"], report["method"]["distribution"]) == (5, "unmemorize")
    assert report["edited"] == mitigation.edited == sum(edit["changed"] for edit in report["edits"].values())
    assert all(edit["zeroed"] for edit in report["edits"].values())
    assert report["cost"]["total_seconds"] == mitigation.total_seconds
    before = {(v["metric"], v["set"]): v["before"] for v in report["values"] if v["part"] == "all"}
    assert before["extraction@4+8", "forget"] == 100
    assert report["environment"]["torch"] == torch.__version__


def test_the_card_is_one(mitigation: Mitigation, tmp_path: Path) -> None:
    mitigation.save(tmp_path / "out", source={"model": "my/base", "forget set": "a|b.jsonl"})
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert 'base_model: "my/base"' in card
    assert "| forget set | a\\|b.jsonl |" in card
    extraction = mitigation.value("extraction", "forget")
    assert f"| extraction@4+8 | forget | 100.00 | {extraction.after:.2f} | 6 |" in card


def test_the_card_claims_what_its_numbers_show(registry: Registry, tmp_path: Path) -> None:
    def card(name: str, **settings: Any) -> str:
        made = unmemorize.mitigate(
            tiny_model("llama"), method="durable", ratio=0.3, retain=tiny_sequences(9, seed=6), prompt=4,
            registry=registry, **settings,
        )  # fmt: skip
        made.save(tmp_path / name)
        return (tmp_path / name / "README.md").read_text()

    never_said = card("never", forget=[list(range(3, 15))] * 2 + [list(range(15, 27))])
    assert "extraction@4+8 0.00 before and 0.00 after" in never_said
    assert "- flag `base-not-memorized`: " in never_said
    unmeasured = card("unmeasured", forget=own_words(tiny_model("llama")), metrics=["accuracy"])
    assert "How much of it the model still regurgitates was not measured." in unmeasured
    assert "no longer regurgitates" not in never_said + unmeasured


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_a_model_with_adapters_is_saved_merged_and_edited(registry: Registry, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = tiny_model("llama")
    config = peft.LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, config).eval()
    words = own_words(model)
    made = unmemorize.mitigate(
        model, method="durable", ratio=0.3, forget=words, retain=tiny_sequences(9, seed=6), prompt=4, registry=registry
    )
    extraction = made.value("extraction", "forget")
    assert extraction.before == 100  # what the adapted model generates, not its base
    assert own_words(model) == words  # it is as it was: a copy was merged and mitigated
    made.save(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in made.model.state_dict().items())
    measured = unmemorize.mitigate(
        again, method="durable", ratio=0.3, forget=words, retain=tiny_sequences(9, seed=6), prompt=4, registry=registry
    )
    assert measured.value("extraction", "forget").before == extraction.after


def test_what_does_not_come_back_is_not_saved(mitigation: Mitigation, tmp_path: Path) -> None:
    mitigation.model.save_pretrained = tiny_model("llama").save_pretrained  # the model without the edit
    with pytest.raises(DataError, match=r"is not the one that was measured: .* has other values"):
        mitigation.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(mitigation: Mitigation, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        mitigation.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_sets_can_be_files(registry: Registry, tmp_path: Path) -> None:
    def saved(name: str, rows: list[Any]) -> str:
        (tmp_path / name).write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
        return str(tmp_path / name)

    model, same = tiny_model("gpt2"), tiny_model("gpt2")
    words, kept = own_words(model), tiny_sequences(9, seed=6, shortest=12, longest=12).tokens.tolist()
    common: dict[str, Any] = {"method": "durable", "ratio": 0.3, "prompt": 4, "registry": registry}
    given = unmemorize.mitigate(model, forget=words, retain=kept, **common)
    read = unmemorize.mitigate(
        same, forget=saved("forget.jsonl", words), retain=saved("kept.jsonl", [*kept, words[0]]), **common
    )
    assert read.value("extraction", "forget") == given.value("extraction", "forget")
    assert read.value("accuracy", "holdout") == given.value("accuracy", "holdout")
