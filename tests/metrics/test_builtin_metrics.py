"""The built-in metrics against slow recomputation, and against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from unmemorize import Evaluation, Sequences, Testbed, Window
from unmemorize.evaluation import evaluate, passes
from unmemorize.evaluation.evaluate import ValueKey
from unmemorize.testing import tiny_model, tiny_testbed
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.utility import Accuracy, AccuracyPadded, ForgetPerplexity, Perplexity


class Successor(torch.nn.Module):
    """A 'model' whose arg-max is always the last token plus one, with probability p."""

    def __init__(self, probability: float, vocabulary: int = 29) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, 1)
        self.high = math.log(probability)
        self.low = math.log((1 - probability) / (vocabulary - 1))
        self.vocabulary = vocabulary

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, **_: object) -> object:
        logits = torch.full((*input_ids.shape, self.vocabulary), self.low)
        logits.scatter_(-1, ((input_ids + 1) % self.vocabulary)[..., None], self.high)
        return type("Output", (), {"logits": logits})()


def successors(**sets: object) -> Testbed:
    return Testbed(name="t", model=Successor(0.5), window=Window(2, 2), pad_id=28, **sets)  # type: ignore[arg-type]


def rows(*lists: list[int], **kwargs: object) -> Sequences:
    return Sequences.from_rows(list(lists), prompt=2, pad_id=28, **kwargs)  # type: ignore[arg-type]


def test_extraction_recovered_and_their_names() -> None:
    forget = rows([3, 4, 5, 9], [3, 4, 5, 6], [7, 8, 1, 1], clean_rows=[[3, 4, 5, 6], [3, 4, 9, 9], [7, 8, 9, 10]])
    values = evaluate(successors(forget=forget), [Extraction()])
    assert values[ValueKey("extraction@2+2", "forget", "all")].measurement.value == pytest.approx(100 / 3)
    recovered = values[ValueKey("recovered@2+2", "forget", "all")]
    assert recovered.measurement.value == pytest.approx(200 / 3)
    assert recovered.direction == "higher"
    assert values[ValueKey("extraction@2+2", "forget", "all")].measurement.per_sequence == (0.0, 100.0, 0.0)


def test_halves_and_duplication_classes() -> None:
    forget = rows([3, 4, 5, 6], [3, 4, 5, 9], [7, 8, 9, 10], [1, 2, 3, 4])
    forget = dataclasses.replace(forget, copies=torch.tensor([1, 1, 10, 10]))
    values = evaluate(successors(forget=forget), [Extraction()])
    shown = {slot.part: (m.measurement.value, m.measurement.count) for slot, m in values.items()}
    assert shown == {
        "all": (75.0, 4), "select": (100.0, 2), "report": (50.0, 2), "copies=1": (50.0, 2), "copies=10": (100.0, 2),
    }  # fmt: skip


def test_forget_unseen_is_reported_apart() -> None:
    values = evaluate(successors(forget=rows([1, 2, 3, 4]), forget_unseen=rows([1, 2, 3, 9])), [Extraction()])
    assert values[ValueKey("extraction@2+2", "forget", "all")].measurement.value == 100
    assert values[ValueKey("extraction@2+2", "forget_unseen", "all")].measurement.value == 0


def test_lengths_of_the_check_can_be_given() -> None:
    values = evaluate(successors(forget=rows([1, 9, 10, 11])), [Extraction(prompt=1), Extraction(prompt=2, suffix=1)])
    assert values[ValueKey("extraction@1+2", "forget", "all")].measurement.value == 0
    assert values[ValueKey("extraction@2+1", "forget", "all")].measurement.value == 100


def test_accuracy_counts_real_tokens_and_no_first_one() -> None:
    testbed = successors(forget=rows([1, 2, 3]), holdouts={"a": rows([1, 2, 9], [1, 2, 3, 4, 5]), "b": rows([1, 2])})
    values = evaluate(testbed, [Accuracy()])
    assert values[ValueKey("accuracy", "holdout:a", "all")].measurement.value == pytest.approx(100 * 5 / 6)
    assert values[ValueKey("accuracy", "holdout:a", "all")].measurement.count == 6
    assert values[ValueKey("accuracy", "holdout", "all")].measurement.value == pytest.approx((100 * 5 / 6 + 100) / 2)


def test_padded_accuracy_counts_padding() -> None:
    testbed = successors(forget=rows([1, 2, 3]), holdouts={"a": rows([1, 2, 27], [1, 2, 3, 4, 5])})
    value = evaluate(testbed, [AccuracyPadded()])[ValueKey("accuracy_padded", "holdout:a", "all")].measurement
    assert value.count == 8
    assert value.value == pytest.approx(100 * 6 / 8)  # 1->2 hit, 2->27 miss, 27->28 (padding) hit, 28->28 miss


def test_perplexity_is_one_mean_over_all_tokens() -> None:
    testbed = successors(forget=rows([1, 2, 3]), holdouts={"a": rows([1, 2, 3]), "b": rows([1, 2, 3, 4, 9])})
    values = evaluate(testbed, [Perplexity(), ForgetPerplexity()])
    miss = -math.log(0.5 / 28)
    assert values[ValueKey("perplexity", "holdout:a", "all")].measurement.value == pytest.approx(2.0)
    expected = math.exp((5 * math.log(2) + miss) / 6)
    assert values[ValueKey("perplexity", "holdout", "all")].measurement.value == pytest.approx(expected)
    assert values[ValueKey("forget_perplexity", "forget", "all")].measurement.value == pytest.approx(2.0)


def test_no_value_depends_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    testbed = tiny_testbed(tiny_model("llama"), ())
    metrics = [Extraction(), Accuracy(), AccuracyPadded(), Perplexity(), ForgetPerplexity()]
    together = evaluate(testbed, metrics)
    monkeypatch.setattr(passes, "LOGIT_BUDGET", 1)
    alone = evaluate(testbed, metrics)
    assert together.keys() == alone.keys()
    for slot, measured in together.items():
        assert alone[slot].measurement.value == pytest.approx(measured.measurement.value, rel=1e-5), slot


def test_metrics_share_one_pass_per_set(monkeypatch: pytest.MonkeyPatch) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    read: list[str] = []
    real = passes.read_teacher_forced

    def counted(testbed: Testbed, rows: Sequences, context: object, description: str) -> object:
        read.append(description)
        return real(testbed, rows, context, description)  # type: ignore[arg-type]

    monkeypatch.setattr(passes, "read_teacher_forced", counted)
    evaluation = Evaluation(testbed)
    for metric in (Accuracy(), Perplexity()):
        list(metric.measure(evaluation))
    assert read == ["reading holdout:one"]
