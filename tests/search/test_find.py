"""`find` finds exactly the planted windows, also after a kill, and refuses what it cannot search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import unmemorize
from unmemorize import ConfigError, DataError, Findings, Testbed
from unmemorize.contracts.context import Silent
from unmemorize.data.corpora import open_corpus
from unmemorize.search.control import Control, same_tokens
from unmemorize.search.log import SearchLog
from unmemorize.search.search import weights_digest
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize.toolkit import ModelSource

TestbedOf = Callable[[str], Testbed]
TextsOf = Callable[[Testbed], list[str]]


def search(testbed: Testbed, texts: Any, **settings: Any) -> Findings:
    return unmemorize.find(testbed.model, texts, tokenizer=testbed.tokenizer, **settings)


def generated(testbed: Testbed, text: str, prompt: int, suffix: int) -> list[int]:
    """The offsets of the windows of `text` whose suffix plain `generate` gives."""
    ids = torch.tensor(testbed.tokenizer(text)["input_ids"])
    windows = ids.unfold(0, prompt + suffix, 1)
    model: Any = testbed.model
    said = model.generate(
        windows[:, :prompt], attention_mask=torch.ones_like(windows[:, :prompt]),
        generation_config=GenerationConfig(do_sample=False, max_new_tokens=suffix, pad_token_id=testbed.pad_id),
    )  # fmt: skip
    return (said == windows).all(dim=1).nonzero().flatten().tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_windows_are_those_that_generation_gives(
    architecture: str, testbed_of: TestbedOf, texts_of: TextsOf, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of(architecture)
    texts = texts_of(testbed)
    found = search(testbed, texts, **sizes)
    expected = [
        (f"row {number}", offset)
        for number, text in enumerate(texts)
        for offset in generated(testbed, text, sizes["prompt"], sizes["suffix"])
    ]
    assert [(window.source, window.token_offset) for window in found.windows] == expected
    assert len(expected) >= len(testbed.forget)


def test_exactly_the_planted_windows_are_found_in_a_folder(
    folder: Path, testbed_of: TestbedOf, before: int, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of("gpt2")
    found = search(testbed, folder, **sizes)
    assert [window.tokens for window in found.windows] == testbed.forget.tokens.tolist()
    assert [window.source for window in found.windows] == [f"{2 * number:02}.txt" for number in range(16)]
    assert {window.token_offset for window in found.windows} == {before}
    assert {window.group for window in found.windows} == set(range(16))
    assert (found.documents, found.checked, found.tokens) == (32, 32 * 19, 32 * 32)
    for window in found.windows:
        text = (folder / window.source).read_text()
        assert window.char_offset is not None
        assert text[window.char_offset :].startswith(window.text)
        assert testbed.tokenizer(window.prompt_text)["input_ids"] == window.tokens[:5]
        assert testbed.tokenizer(window.suffix_text)["input_ids"] == window.tokens[5:]
        assert window.perplexity < 1.2


def test_a_stride_misses_what_it_steps_over(folder: Path, testbed_of: TestbedOf, sizes: dict[str, Any]) -> None:
    testbed = testbed_of("gpt2")
    assert len(search(testbed, folder, **sizes | {"stride": 7}).windows) == 16  # the rows begin at token 7
    assert not search(testbed, folder, **sizes | {"stride": 2}).windows


def test_a_text_that_stands_twice_is_read_once_and_found_twice(
    testbed_of: TestbedOf, texts_of: TextsOf, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of("gpt2")
    text = texts_of(testbed)[0]
    read: list[int] = []
    handle = testbed.model.register_forward_pre_hook(
        lambda _, __, given: read.append(len(given["input_ids"])), with_kwargs=True
    )
    found = search(testbed, [text] * 40, batch=10, **sizes)
    handle.remove()
    assert [window.source for window in found.windows] == [f"row {number}" for number in range(40)]
    assert found.checked == 40 * 19
    assert sum(read) < 2 * 19
    assert [window.duplicate for window in found.windows] == [False] + [True] * 39
    assert {window.group for window in found.windows} == {0}


class KilledError(Exception):
    """Stands for a kill."""


class KilledAfter(Silent):
    """Progress that ends the search once so many windows have been checked."""

    def __init__(self, windows: int) -> None:
        self.left = windows

    def task(self, description: str, total: int | None) -> Any:
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise KilledError


@pytest.mark.parametrize("batch", [1, 13, 256])
def test_a_killed_search_goes_on_and_ends_with_the_same_file(
    batch: int, folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of("llama")
    whole = search(testbed, folder, **sizes)
    whole.write(tmp_path / "whole.jsonl")
    state = tmp_path / "state"
    with pytest.raises(KilledError):
        search(testbed, folder, state=state, batch=batch, progress=KilledAfter(250), **sizes)
    state.write_bytes(state.read_bytes() + b'{"from": 25')  # the batch in progress
    read: list[int] = []
    handle = testbed.model.register_forward_pre_hook(
        lambda _, __, given: read.append(len(given["input_ids"])), with_kwargs=True
    )
    found = search(testbed, folder, state=state, batch=50, **sizes)
    assert sum(read) < found.checked
    del read[:]
    again = search(testbed, folder, state=state, **sizes)
    handle.remove()
    assert read == [1, 1]  # the gate's own passes; nothing is left to be checked
    for number, each in enumerate((found, again)):
        each.write(tmp_path / f"{number}.jsonl")
        assert (tmp_path / f"{number}.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert found.seconds > 0


def test_another_model_or_text_or_length_is_not_mixed_with_what_was_done(
    folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    testbed, state = testbed_of("gpt2"), tmp_path / "state"
    search(testbed, folder, state=state, **sizes)
    with pytest.raises(DataError, match="belongs to a search with model"):
        search(testbed_of("llama"), folder, state=state, **sizes)
    with pytest.raises(DataError, match="with stride = 1; this one has 3"):
        search(testbed, folder, state=state, **sizes | {"stride": 3})
    (folder / "00.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="with texts"):
        search(testbed, folder, state=state, **sizes)
    assert search(testbed, folder, state=state, fresh=True, **sizes).checked == 31 * 19
    assert search(testbed, folder, state=state, copy_share=0.9, distinct=1, **sizes).checked == 31 * 19


def test_only_so_many_tokens_are_read(folder: Path, testbed_of: TestbedOf, sizes: dict[str, Any]) -> None:
    found = search(testbed_of("gpt2"), folder, limit_tokens=40, **sizes)
    assert (found.tokens, found.documents, found.checked) == (40, 2, 19)
    assert len(found.windows) == 1


def test_patterns_choose_the_files(folder: Path, testbed_of: TestbedOf, sizes: dict[str, Any]) -> None:
    found = search(testbed_of("gpt2"), folder, include=["00.txt", "03.txt"], **sizes)
    assert found.documents == 2
    (folder / "LICENSE").write_bytes(b"\xff\xfe 1 2 3")
    assert search(testbed_of("gpt2"), folder, **sizes).documents == 33


def test_found_windows_are_a_forget_file(
    folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of("gpt2")
    found = search(testbed, folder, **sizes)
    found.write(tmp_path / "deep" / "found.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "deep" / "found.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in rows] == testbed.forget.tokens.tolist()
    assert {row["prompt"] for row in rows} == {5}
    assert [row["group"] for row in rows] == list(range(16))
    assert torch.equal(found.sequences().tokens, testbed.forget.tokens)
    with pytest.raises(DataError, match="cannot be written") as error:
        found.write(tmp_path)
    assert "--out" in error.value.fix


def test_trivial_rows_can_be_left_out_of_the_file(
    folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    found = search(testbed_of("gpt2"), folder, distinct=8, **sizes)
    few = [window for window in found.windows if window.distinct < 8]
    assert 0 < len(few) < 16
    assert [window for window in found.windows if window.trivial] == few
    found.write(tmp_path / "found.jsonl", found.kept(trivial=False))
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 16 - len(few)


def test_a_model_from_a_folder_brings_its_tokenizer(
    folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    testbed = testbed_of("gpt_neox")
    testbed.model.save_pretrained(tmp_path / "model")
    testbed.tokenizer.save_pretrained(tmp_path / "model")
    given = search(testbed, folder, **sizes)
    for model in (str(tmp_path / "model"), ModelSource(model=str(tmp_path / "model"), dtype="float32")):
        found = unmemorize.find(model, open_corpus(str(folder)), device="cpu", **sizes)
        assert found.windows == given.windows


class TestControl:
    def test_the_model_itself_completes_everything(
        self, folder: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
    ) -> None:
        testbed = testbed_of("gpt2")
        found = search(testbed, folder, control=testbed.model, **sizes)
        assert {(window.control_extracted, window.control_share) for window in found.windows} == {(True, 1.0)}

    def test_a_model_that_knows_nothing_completes_nothing(
        self, folder: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
    ) -> None:
        from unmemorize.testing.memorizing import fresh_model

        testbed = testbed_of("gpt2")
        control = fresh_model("llama", 5)
        found = search(testbed, folder, control=control, control_tokenizer=testbed.tokenizer, **sizes)
        assert not any(window.control_extracted for window in found.windows)
        assert all(window.control_share is not None and window.control_share < 0.7 for window in found.windows)
        assert found.report()["control_extracts_not_trivial"] == 0

    def test_other_tokens_of_the_same_text_are_compared(self, testbed_of: TestbedOf) -> None:
        """Token n of the control is token 31 - n of the model: the model itself, seen through another tokenizer."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        testbed = testbed_of("gpt2")
        vocabulary = {str(number): 31 - number for number in range(32)} | {"[pad]": 32}
        words = Tokenizer(models.WordLevel(vocabulary, "[pad]"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        other = PreTrainedTokenizerFast(tokenizer_object=words)
        assert not same_tokens(other, testbed.tokenizer)
        row = testbed.forget.tokens[0].tolist()
        prompt, suffix = (" ".join(map(str, part)) for part in (row[:5], row[5:]))
        mirrored = Control(testbed.model, other).reading(row, 5, prompt, " " + suffix)
        straight = Control(testbed.model).reading(row, 5, prompt, " " + suffix)
        assert straight.extractable
        assert not mirrored.extractable
        assert mirrored.tokens == straight.tokens == 9
        turned = [31 - token for token in row]
        texts = (" ".join(map(str, part)) for part in (turned[:5], turned[5:]))
        assert Control(testbed.model, other).reading(turned, 5, next(texts), " " + next(texts)) == straight

    def test_a_token_across_the_border_belongs_to_the_suffix(self) -> None:
        class Pairs:
            """Two letters are a token; a single one at the end is another."""

            def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
                pieces = [text[start : start + 2] for start in range(0, len(text), 2)]
                return {"input_ids": [sum(map(ord, piece)) % 29 for piece in pieces]}

        model = tiny_model("gpt2")
        assert Control(model, Pairs()).reading([], 0, "abc", "defgh").tokens == 3  # ab | cd ef gh
        assert Control(model, Pairs()).reading([], 0, "abcd", "efgh").tokens == 2
        assert Control(model, Pairs()).reading([], 0, "a", "bcd").tokens == 1  # something must be shown

    def test_of_a_text_too_long_for_the_control_the_end_is_read(self) -> None:
        model = tiny_model("gpt2")
        row = [3 + number % 20 for number in range(100)]
        assert Control(model).reading(row, 80, "", "").tokens == 20
        assert Control(model).reading(row, 80, "", "") == Control(model).reading(row[36:], 44, "", "")


class TestBadInput:
    """Each is an error in three parts, before anything is spent."""

    @pytest.mark.parametrize(
        ("settings", "said", "expected"),
        [
            ({"prompt": 0}, "find(...): prompt = 0 is wrong", "integer >= 1 (default 32)"),
            ({"stride": "x"}, "find(...): stride = \"x\" is wrong", ""),
            ({"copy_share": 2}, "copy_share = 2 is wrong", ""),
            ({"limit_tokens": 0}, "limit_tokens = 0 is wrong", ""),
            ({"include": []}, "include = [] is wrong", ""),
            ({"strid": 3}, "strid is not a setting", "stride"),
        ],
    )  # fmt: skip
    def test_settings(self, settings: dict[str, Any], said: str, expected: str, testbed_of: TestbedOf) -> None:
        with pytest.raises(ConfigError) as error:
            search(testbed_of("gpt2"), ["1 2 3"], **settings)
        assert said in error.value.what
        assert expected in error.value.expected
        assert error.value.fix == "see `unmemorize find --help`"

    def test_texts_that_are_not_there(self, testbed_of: TestbedOf, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"texts = .*: there is no file or folder"):
            search(testbed_of("gpt2"), tmp_path / "nowhere")
        with pytest.raises(DataError, match="the folder holds no text"):
            search(testbed_of("gpt2"), tmp_path)

    @pytest.mark.parametrize("texts", [["1 2 3"], [" "]])
    def test_texts_that_are_too_short(self, texts: list[str], testbed_of: TestbedOf) -> None:
        with pytest.raises(DataError, match="hold no window of 14 tokens") as error:
            search(testbed_of("gpt2"), texts, prompt=5, suffix=9)
        assert "5 + 9 tokens" in error.value.expected
        assert "prompt=..." in error.value.fix

    def test_windows_longer_than_the_context(self, testbed_of: TestbedOf) -> None:
        with pytest.raises(DataError, match="longer than the model's context of 32") as error:
            search(testbed_of("gpt2"), ["1 2 3"], prompt=20, suffix=13)
        assert error.value.fix == "prompt=16, suffix=16 (on the command line --prompt 16 --suffix 16)"

    def test_a_tokenizer_of_another_model(self, testbed_of: TestbedOf) -> None:
        with pytest.raises(
            DataError, match=r"tokenizer of the model has .* entries, and the model has embeddings for 29"
        ) as error:
            unmemorize.find(
                tiny_model("gpt2"), ["31 " * 20], tokenizer=testbed_of("gpt2").tokenizer, prompt=5, suffix=5
            )
        assert "trained with" in error.value.expected

    def test_no_tokenizer(self, testbed_of: TestbedOf) -> None:
        with pytest.raises(DataError, match="there is no tokenizer") as error:
            unmemorize.find(testbed_of("gpt2").model, ["1 2 3"])
        assert "tokenizer=" in error.value.fix


def test_a_changed_weight_is_another_model(testbed_of: TestbedOf) -> None:
    model = tiny_model("llama")
    before = weights_digest(model)
    assert weights_digest(tiny_model("llama")) == before
    assert weights_digest(tiny_model("llama", dtype=torch.bfloat16)) != before
    with torch.no_grad():
        weight = next(iter(model.parameters())).view(-1)
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert weights_digest(model) != before


def test_the_state_of_a_finished_search_has_every_window(
    folder: Path, tmp_path: Path, testbed_of: TestbedOf, sizes: dict[str, Any]
) -> None:
    state = tmp_path / "state"
    found = search(testbed_of("gpt2"), folder, state=state, **sizes)
    settings = json.loads(state.read_text().splitlines()[0].partition("\t")[0])["settings"]
    assert SearchLog(state, settings).state.windows == found.checked
    assert settings["control"] is None
