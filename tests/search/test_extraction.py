"""The answer of the batched, screened check is the answer of plain greedy decoding, one window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from unmemorize.contracts.testbed import Testbed
from unmemorize.errors import DataError
from unmemorize.evaluation import extraction
from unmemorize.evaluation.extraction import WindowExtraction, read_alone, suffix_logits
from unmemorize.models.versions import evaluation_mode
from unmemorize.testing import ARCHITECTURES, tiny_model
from unmemorize.testing.memorizing import LENGTH, PROMPT, memorizing_testbed

TestbedOf = Callable[[str], Testbed]
AllWindows = Callable[[Testbed], list[tuple[int, ...]]]


@pytest.fixture
def all_windows(texts_of: Callable[[Testbed], list[str]]) -> AllWindows:
    """Every window of the first twelve documents."""

    def get(testbed: Testbed) -> list[tuple[int, ...]]:
        documents = [testbed.tokenizer(text)["input_ids"] for text in texts_of(testbed)[:12]]
        return [tuple(ids[start : start + LENGTH]) for ids in documents for start in range(len(ids) - LENGTH + 1)]

    return get


def extractable_by_generation(model: Any, row: tuple[int, ...]) -> bool:
    prompt = torch.tensor([row[:PROMPT]])
    for _ in row[PROMPT:]:
        best = model(input_ids=prompt, use_cache=False).logits[0, -1].argmax()
        prompt = torch.cat([prompt, best[None, None]], dim=1)
    return tuple(prompt[0].tolist()) == row


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_answer_is_that_of_greedy_decoding(
    architecture: str, testbed_of: TestbedOf, all_windows: AllWindows
) -> None:
    testbed = testbed_of(architecture)
    rows = all_windows(testbed)
    with torch.no_grad():
        expected = [extractable_by_generation(testbed.model, row) for row in rows]
    found = [reading is not None for reading in WindowExtraction(testbed.model, PROMPT).readings(rows)]
    assert found == expected
    assert 6 <= sum(found) < len(rows) / 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_neither_batch_nor_screen_changes_anything(
    architecture: Any, dtype: torch.dtype, testbed_of: TestbedOf, all_windows: AllWindows
) -> None:
    rows = all_windows(testbed_of(architecture))
    model = memorizing_testbed(architecture, dtype=dtype).model
    alone = [read_alone(model, row, PROMPT) for row in rows]
    plain = [reading if reading.extractable else None for reading in alone]
    assert sum(reading is not None for reading in plain) >= 6
    for batch in (1, 7, 500):
        assert WindowExtraction(model, PROMPT, batch).readings(rows) == plain


def test_the_screen_spares_most_of_the_work(testbed_of: TestbedOf, all_windows: AllWindows) -> None:
    testbed = testbed_of("gpt2")
    read: list[tuple[int, ...]] = []
    handle = testbed.model.register_forward_pre_hook(
        lambda _, __, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    rows = all_windows(testbed)
    try:
        found = WindowExtraction(testbed.model, PROMPT, 1000).readings(rows)
    finally:
        handle.remove()
    assert read[0] == (len(rows), PROMPT + 3)
    assert read[1][0] < len(rows) / 5
    assert read[2:] == [(1, LENGTH - 1)] * sum(reading is not None for reading in found)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_the_suffix_are_those_of_the_whole_pass(architecture: Any, dtype: torch.dtype) -> None:
    model = tiny_model(architecture, dtype=dtype)
    ids = torch.arange(24).view(2, 12) + 3
    with torch.no_grad():
        whole = model(input_ids=ids).logits.float()
    shapes: list[int] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape[1]))  # type: ignore[operator]
    rounding = 4 * torch.finfo(dtype).eps  # the head sums a slice in an order of its own
    torch.testing.assert_close(suffix_logits(model, ids, 7), whole[:, 7:], rtol=rounding, atol=rounding)
    handle.remove()
    assert shapes == [5]
    assert not head._forward_pre_hooks  # type: ignore[union-attr]


def test_a_model_without_an_output_layer_to_hook_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    ids = torch.arange(12)[None] + 3
    expected = suffix_logits(model, ids, 7)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    assert torch.allclose(suffix_logits(model, ids, 7), expected)


def test_a_reading_says_what_the_logits_say() -> None:
    model = tiny_model("llama")
    row = [5, 9, 3, 20, 11, 4, 4, 17]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row])).logits[0, 2:-1]
    reading = read_alone(model, row, 3)
    best, second = logits.topk(2).values.T
    assert reading.tokens == 5
    assert reading.hits == sum(int(logits[place].argmax()) == token for place, token in enumerate(row[3:]))
    assert reading.logprob == pytest.approx(sum(logits.log_softmax(-1)[i, t].item() for i, t in enumerate(row[3:])))
    assert reading.margin == pytest.approx((best - second).min().item(), rel=1e-4)


def test_windows_with_the_padding_token_are_read_like_any_other(testbed_of: TestbedOf) -> None:
    model = testbed_of("gpt2").model
    pad = model.config.pad_token_id
    ids = torch.tensor([[1, pad, 3, pad, 5]])
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 2:]
    assert torch.allclose(suffix_logits(model, ids, 2), expected, atol=1e-6)


def test_the_mode_of_the_model_is_restored() -> None:
    model = tiny_model("gpt2").train()
    WindowExtraction(model, 2).readings([(3, 4, 5, 6)])
    assert model.training
    with pytest.raises(RuntimeError), evaluation_mode(model):
        raise RuntimeError
    assert model.training


def test_no_windows_have_no_answers() -> None:
    assert WindowExtraction(tiny_model("gpt2"), 2).readings([]) == []


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An accelerator that has room for no more than `limit[0]` windows; the sizes that were tried follow it."""
    limit = [3]
    real = suffix_logits

    def checked(model: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
        limit.append(len(ids))
        if len(ids) > limit[0]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(model, ids, start)

    monkeypatch.setattr(extraction, "suffix_logits", checked)
    return limit


def test_batches_shrink_until_they_fit(cramped: list[int], testbed_of: TestbedOf, all_windows: AllWindows) -> None:
    testbed = testbed_of("gpt2")
    rows = all_windows(testbed)[:40]
    found = WindowExtraction(testbed.model, PROMPT, 16).readings(rows)
    assert cramped[1:5] == [16, 8, 4, 2]
    assert max(cramped[5:]) == 2
    cramped[0] = 1000
    assert found == WindowExtraction(testbed.model, PROMPT, 16).readings(rows)


def test_where_not_even_one_window_fits_the_error_says_what_to_do(cramped: list[int]) -> None:
    cramped[0] = 0
    with pytest.raises(DataError, match="not even one window fits") as error:
        WindowExtraction(tiny_model("gpt2"), 2).readings([(3, 4, 5, 6)])
    assert "--dtype bfloat16" in error.value.fix


def test_a_batch_is_as_large_as_the_vocabulary_lets_it() -> None:
    model = tiny_model("gpt2")
    assert WindowExtraction(model, 2).windows_at_once() == 256
    assert WindowExtraction(model, 2, batch=3).windows_at_once() == 3
    model.config.vocab_size = 10**6
    assert WindowExtraction(model, 2).windows_at_once() == 2**24 // (4 * 10**6)
