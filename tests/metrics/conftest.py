"""A model whose logits stand in a table, and testbeds around it: every number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from unmemorize import Measurement, Metric, Sequences, Testbed, Window
from unmemorize.evaluation import evaluate
from unmemorize.testing import tiny_model, tiny_sequences, tiny_testbed


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size: int = 8, **kwargs: Any) -> None:
        super().__init__(vocab_size=vocab_size, num_hidden_layers=1, hidden_size=1, **kwargs)


class TableModel(PreTrainedModel, GenerationMixin):
    """The next token depends on the last one alone: row t of the table holds the logits after token t."""

    config_class = TableConfig

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__(TableConfig(vocab_size=table.shape[0]))
        self.table = torch.nn.Embedding.from_pretrained(table.clone(), freeze=False)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.table

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.table(input_ids))


def _table_testbed(table: torch.Tensor, forget: Sequences, *, prompt: int = 2, suffix: int = 4, **sets: Any) -> Testbed:
    model = TableModel(table.float()).eval()
    return Testbed(name="table", model=model, forget=forget, window=Window(prompt, suffix), **sets)


@pytest.fixture
def table_testbed() -> Callable[..., Testbed]:
    return _table_testbed


@pytest.fixture
def successor() -> torch.Tensor:
    """(10, 10) logits after which the arg-max is always the last token plus one."""
    return torch.eye(10).roll(1, dims=1) * 4


@pytest.fixture
def rows() -> Callable[..., Sequences]:
    return lambda *lists, **kwargs: Sequences.from_rows(list(lists), prompt=2, **kwargs)


@pytest.fixture
def measured() -> Callable[..., dict[tuple[str, str, str], Measurement]]:
    """Every value of metrics on a testbed, by (label, set, part)."""

    def measure(testbed: Testbed, *metrics: Metric) -> dict[tuple[str, str, str], Measurement]:
        return {tuple(slot): value.measurement for slot, value in evaluate(testbed, metrics).items()}

    return measure


def _own_continuations(model: PreTrainedModel, count: int, length: int) -> list[list[int]]:
    """Continue random prompts of 4 tokens greedily, one token at a time."""
    ids = tiny_sequences(count, seed=3).tokens[:, :4]
    with torch.no_grad():
        for _ in range(length):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids.tolist()


@pytest.fixture
def regurgitating() -> Callable[..., Testbed]:
    """A testbed whose model regurgitates all of its 8 memorized rows (6 to forget, 2 unseen), each of 4 + 10 tokens."""

    def make(architecture: Any = "gpt2") -> Testbed:
        testbed = tiny_testbed(tiny_model(architecture), ())
        said = _own_continuations(testbed.model, 8, 10)
        testbed.forget = Sequences.from_rows(said[:6], prompt=4, pad_id=2)
        testbed.forget_unseen = Sequences.from_rows(said[6:], prompt=4, pad_id=2, first_id=100)
        return testbed

    return make
