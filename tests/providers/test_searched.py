"""A suite's testbed whose forget set is what the model regurgitates of a folder of texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import unmemorize
from unmemorize import Context, DataError
from unmemorize.registry.manager import Registry
from unmemorize.suite import load_suite
from unmemorize.testing.memorizing import memorizing_testbed
from unmemorize_plugins.providers.huggingface import HuggingFace

SIZES = {"prompt": 5, "suffix": 9, "stride": 1}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """`model/`, which extracts 16 rows; `texts/`, in which they stand among others; `retain/`, numbers that count."""
    testbed = memorizing_testbed("gpt2")
    testbed.model.save_pretrained(tmp_path / "model")
    testbed.tokenizer.save_pretrained(tmp_path / "model")
    generator = random.Random(2)
    for folder in ("texts", "retain"):
        (tmp_path / folder).mkdir()
    for number, row in enumerate(testbed.forget.tokens.tolist()):
        words = [*(generator.randrange(32) for _ in range(10)), *row, *(generator.randrange(32) for _ in range(9))]
        (tmp_path / "texts" / f"{number:02}.txt").write_text(" ".join(map(str, words)))
        counting = [(number + 3 * step) % 32 for step in range(40)]
        (tmp_path / "retain" / f"{number:02}.txt").write_text(" ".join(map(str, counting)))
    return tmp_path


def provider(place: Path, **find: Any) -> HuggingFace:
    return HuggingFace(
        model=str(place / "model"), retain=str(place / "retain"), text_length=14,
        find={"texts": str(place / "texts"), **SIZES, **find},
    )  # fmt: skip


def test_what_is_regurgitated_becomes_the_forget_set(place: Path) -> None:
    testbed = provider(place).load(Context(seed=0, cache=place / "cache"))
    assert testbed.forget.tokens.tolist() == memorizing_testbed("gpt2").forget.tokens.tolist()
    assert testbed.window == (5, 9)
    assert set(testbed.facts["sources"]) == {"model", "find", "retain", "drawing"}


def test_it_is_searched_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = provider(place).load(Context(seed=0, cache=place / "cache"))
    monkeypatch.setattr("unmemorize.evaluation.extraction.WindowExtraction.readings", None)
    again = provider(place).load(Context(seed=0, cache=place / "cache"))
    assert again.data_digest() == first.data_digest()
    with pytest.raises(TypeError):
        provider(place, distinct=3).load(Context(seed=0, cache=place / "cache"))


def test_without_a_cache_it_works_too(place: Path) -> None:
    assert len(provider(place).load(Context(seed=0)).forget) == 16


def test_what_is_dropped_is_a_setting(place: Path) -> None:
    (place / "texts" / "99.txt").write_text((place / "texts" / "00.txt").read_text())
    assert len(provider(place).load(Context(seed=0)).forget) == 16
    few = provider(place, distinct=8).load(Context(seed=0))
    everything = provider(place, distinct=8, drop=[]).load(Context(seed=0))
    assert 0 < len(few.forget) < len(everything.forget) == 16  # equal rows are never kept twice


def test_the_texts_are_in_the_fingerprint(place: Path) -> None:
    before = provider(place).fingerprint()
    (place / "texts" / "00.txt").write_text("1 2 3")
    after = provider(place).fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"find"}


def test_where_nothing_is_regurgitated_the_error_says_what_to_do(place: Path) -> None:
    with pytest.raises(DataError, match="of 320 windows 16 are extractable, and none is left") as error:
        provider(place, distinct=14).load(Context(seed=0))
    assert "trivial, overlaps, duplicates" in error.value.what
    assert "find.stride = 1" in error.value.fix


@pytest.mark.faults
@pytest.mark.parametrize(
    "damage", [b"", b"garbage\n", b'{"find": 1, "settings": {}}\n', "first line flipped", "a line flipped"]
)
def test_a_damaged_search_is_begun_again(place: Path, damage: bytes | str) -> None:
    context = Context(seed=0, cache=place / "cache")
    for _ in range(2):  # what was searched is kept where an error says what to do, too
        with pytest.raises(DataError, match="of 320 windows 16 are extractable"):
            provider(place, distinct=14).load(context)
        (state,) = (place / "cache" / "found").glob("*.unfinished/found.state")
        content = bytearray(state.read_bytes())
        content[5 if damage == "first line flipped" else -60] ^= 1
        state.write_bytes(content if isinstance(damage, str) else damage)


@pytest.mark.parametrize("also", ["", 'forget = "x.jsonl"\nfind = {texts = "texts"}'])
def test_a_suite_says_either_forget_or_find(also: str, tmp_path: Path, registry: Registry) -> None:
    suite = f'name = "s"\n[testbed.t]\nprovider = "huggingface"\nmodel = "m"\nretain = "r"\n{also}\n'
    (tmp_path / "s.toml").write_text(suite + "[metric.extraction]\n[metric.perplexity]\n")
    with pytest.raises(unmemorize.ConfigError, match=r"say either forget .* or find"):
        load_suite(tmp_path / "s.toml", registry)


def test_a_suite_runs_on_what_is_found(place: Path, registry: Registry) -> None:
    testbed = {
        "provider": "huggingface", "model": str(place / "model"), "retain": str(place / "retain"), "text_length": 14,
        "find": {"texts": str(place / "texts"), **SIZES},
    }  # fmt: skip
    suite = {
        "name": "found", "testbed": {"own": testbed}, "metric": {"extraction": {}, "perplexity": {}},
        "method": {"durable": {"ratio": 0.05}},
    }  # fmt: skip
    results = unmemorize.run(suite, results=place / "results", device="cpu", registry=registry)
    assert results.frame["status"].to_list() == ["done", "done"]
    (base,) = results.frame.filter(results.frame["method"] == "base")["values"].to_list()
    (extraction,) = [v for v in base if v["metric"] == "extraction@5+9" and v["set"] == "forget" and v["part"] == "all"]
    assert extraction["before"] == 100.0
