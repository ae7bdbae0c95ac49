"""`find` and the metrics say the same of the same window: what one pass over that window alone says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from unmemorize import Evaluation, Sequences, Testbed, Window
from unmemorize.evaluation import passes
from unmemorize.evaluation.extraction import WindowExtraction, read_alone
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_testbed

PROMPT, SUFFIX = 4, 8


def windows(model: PreTrainedModel, count: int = 24) -> list[list[int]]:
    """Greedy continuations of random prompts; one token of every third window is another one."""
    generator = torch.Generator().manual_seed(7)
    rows = torch.randint(3, 29, (count, PROMPT), generator=generator)
    with torch.no_grad():
        for _ in range(SUFFIX):
            rows = torch.cat([rows, model(input_ids=rows).logits[:, -1:].argmax(-1)], dim=1)
    rows[::3, PROMPT + 5] = (rows[::3, PROMPT + 5] + 1) % 29
    return rows.tolist()


def nearly_tied(model: PreTrainedModel) -> PreTrainedModel:
    """Give every second token an output (and an input) that is its neighbour's but for a trifle."""
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            weight: Any = table.weight  # type: ignore[union-attr]
            weight[4::2] = weight[3:-1:2] * (1 + 1e-4)
    return model


def by_metrics(testbed: Testbed, rows: list[list[int]], more: int) -> list[bool]:
    """The answer about windows at the beginning of rows that go on for `more` tokens."""
    longer = Sequences.from_rows([[*row, *row[:more]] for row in rows], prompt=PROMPT, pad_id=2)
    evaluation = Evaluation(dataclasses.replace(testbed, forget=longer))
    found: list[bool] = evaluation.extraction("forget", Window(PROMPT, SUFFIX)).extractable.tolist()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_roads_give_the_same_answer(
    architecture: str, tied: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture).to(dtype)
    testbed = tiny_testbed(nearly_tied(model) if tied else model)
    rows = windows(model)
    alone = [read_alone(model, row, PROMPT).extractable for row in rows]
    assert 0 < sum(alone) < len(rows)
    for batch in (1, 3, 100):
        assert [found is not None for found in WindowExtraction(model, PROMPT, batch).readings(rows)] == alone
        monkeypatch.setattr(passes, "LOGIT_BUDGET", batch * 29 * (PROMPT + SUFFIX))
        assert by_metrics(testbed, rows, more=0) == alone
        assert by_metrics(testbed, rows, more=5) == alone


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rounding_in_a_batch_decides_nothing(architecture: str) -> None:
    model = nearly_tied(tiny_model(architecture))
    rows = windows(model)
    alone = [read_alone(model, row, PROMPT).extractable for row in rows]
    noise = torch.Generator().manual_seed(1)

    def rounded(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits + (4e-3 * torch.rand(logits.shape, generator=noise) if len(logits) > 1 else 0)

    model.get_output_embeddings().register_forward_hook(rounded)
    with torch.no_grad():
        said = model(input_ids=torch.tensor(rows)).logits.argmax(-1)[:, PROMPT - 1 : -1]
    assert [row.tolist() == window[PROMPT:] for row, window in zip(said, rows, strict=True)] != alone
    assert by_metrics(tiny_testbed(model), rows, more=0) == alone
    assert [found is not None for found in WindowExtraction(model, PROMPT).readings(rows)] == alone
