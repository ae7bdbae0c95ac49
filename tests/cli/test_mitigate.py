"""`unmemorize mitigate`: from a folder and a file to an edited model that plain transformers loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM

from unmemorize import UnmemorizeError
from unmemorize.cli.mitigate import command
from unmemorize.testing import tiny_model, tiny_sequences

Mitigate = Callable[..., Result]


@pytest.fixture
def mitigate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mitigate:
    model = tiny_model("gpt_neox")
    model.save_pretrained(tmp_path / "base")
    ids = tiny_sequences(6, seed=5).tokens[:, :4]
    with torch.no_grad():
        for _ in range(8):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    for name, rows in (("forget", ids), ("retain", tiny_sequences(9, seed=6, shortest=12, longest=12).tokens)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"tokens": r}) + "\n" for r in rows.tolist()))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command, ["base", "--out", "out", "--quiet", "--prompt", "4", *arguments])

    return run


def test_the_whole_way(mitigate: Mitigate, tmp_path: Path) -> None:
    result = mitigate(
        "--method", "durable", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--set", "ratio=0.3"
    )
    assert result.exit_code == 0, result.output
    assert "durable:" in result.stdout
    assert "extraction@4+8" in result.stdout
    edited = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    rows = torch.tensor([json.loads(line)["tokens"] for line in (tmp_path / "forget.jsonl").read_text().splitlines()])
    said = edited.generate(rows[:, :4], attention_mask=torch.ones(6, 4), max_new_tokens=8, do_sample=False)
    extractable = int((said == rows).all(dim=1).sum()) if said.shape == rows.shape else 0
    report = json.loads((tmp_path / "out" / "mitigation.json").read_text())
    (after,) = [
        v["after"]
        for v in report["values"]
        if (v["metric"], v["set"], v["part"]) == ("extraction@4+8", "forget", "all")
    ]
    assert after == pytest.approx(100 * extractable / 6) != 100
    assert report["source"]["model"] == "base"
    assert "9 pieces" in report["source"]["retain set"]


def failing(result: Result) -> UnmemorizeError:
    assert isinstance(result.exception, UnmemorizeError), result.output
    return result.exception


def test_a_wrong_method_is_told_before_anything_is_loaded(mitigate: Mitigate, tmp_path: Path) -> None:
    (tmp_path / "base" / "model.safetensors").write_text("broken")
    error = failing(mitigate("--method", "durabel", "--forget", "forget.jsonl"))
    assert "durabel" in error.what
    assert error.expected.startswith("one of durable")


def test_what_a_method_needs_is_asked_for(mitigate: Mitigate, tmp_path: Path) -> None:
    error = failing(mitigate("--method", "balanced_subnet", "--forget", "forget.jsonl"))
    assert "needs the retain set" in error.what


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--forget", "absent.jsonl"], "absent.jsonl"),
        (["--forget", "forget.jsonl", "--set", "rato=1"], "rato"),
        (["--forget", "forget.jsonl", "--set", "ratio"], "ratio"),
        (["--forget", "forget.jsonl", "--prompt", "12"], "12"),
        (["--forget", "forget.jsonl", "--retain", "forget.jsonl"], "near-duplicate"),
        (["--forget", "forget.jsonl", "--device", "gpu"], "gpu"),
    ],
)
def test_bad_input_has_three_parts_and_leaves_nothing(
    mitigate: Mitigate, tmp_path: Path, arguments: list[str], what: str
) -> None:
    error = failing(mitigate("--method", "durable", *arguments))
    assert what in error.what
    assert error.expected
    assert error.fix
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_at_once(mitigate: Mitigate, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    assert "exists already" in failing(mitigate("--method", "durable", "--forget", "forget.jsonl")).what
