"""What holds for every built-in metric: its range, empty sets, batch sizes, decode-time methods, and no traces."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unmemorize import Measurement, Metric, Sequences, Testbed
from unmemorize.evaluation import evaluate, generation, passes
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed
from unmemorize_plugins import register_metrics

METRICS = [metric for metric in register_metrics() if metric.name != "lm_eval"]  # it asks in words
SETTINGS = {"relearning": {"steps": 2, "batch_size": 3}, "sampling": {"samples": 2}}
MEMORIZATION = [metric for metric in METRICS if metric.kind in ("memorization", "robustness")]
names = [metric.name for metric in METRICS]
every = pytest.mark.parametrize("metric", METRICS, ids=names)
about_memorization = pytest.mark.parametrize("metric", MEMORIZATION, ids=[metric.name for metric in MEMORIZATION])

Values = dict[tuple[str, str, str], Measurement]


def made(metric: type[Metric]) -> Metric:
    return metric(**SETTINGS.get(metric.name, {}))


def values(testbed: Testbed, *metrics: type[Metric]) -> Values:
    found = evaluate(testbed, [made(metric) for metric in metrics])
    return {tuple(slot): value.measurement for slot, value in found.items()}


class Only:
    """A logits processor that leaves one token."""

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        kept = torch.full_like(scores, -torch.inf)
        kept[:, 0] = scores[:, 0]
        return kept


@every
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_are_in_range_and_keep_their_sequences(metric: type[Metric], architecture: Any) -> None:
    testbed = tiny_testbed(tiny_model(architecture), ())
    found = values(testbed, metric)
    assert any(label == made(metric).label(testbed) for label, *_ in found)
    for (label, _, part), value in found.items():
        low, high = (1, math.inf) if part == "median" else metric.range
        assert low <= value.value <= high, label
        assert value.count > 0
        if value.per_sequence is not None:
            assert value.ids is not None
            assert len(value.per_sequence) == len(value.ids) == value.count
        if value.low is not None and value.high is not None:
            assert value.low - 1e-9 <= value.value <= value.high + 1e-9


@about_memorization
def test_the_two_forget_sets_are_reported_apart(metric: type[Metric]) -> None:
    found = values(tiny_testbed(tiny_model("gpt2"), ()), metric)
    assert {about for _, about, _ in found} == {"forget", "forget_unseen"}
    without = dataclasses.replace(tiny_testbed(tiny_model("gpt2"), ()), forget_unseen=None)
    assert {about for _, about, _ in values(without, metric)} == {"forget"}


@every
def test_nothing_depends_on_the_batch_size(metric: type[Metric], monkeypatch: pytest.MonkeyPatch) -> None:
    if metric.name == "sampling":
        pytest.skip("samples are drawn batch by batch")
    testbed = tiny_testbed(tiny_model("llama"), ())
    together = values(testbed, metric)
    monkeypatch.setattr(passes, "LOGIT_BUDGET", 1)
    monkeypatch.setattr(generation, "CACHE_BUDGET", 1)
    alone = values(testbed, metric)
    assert together.keys() == alone.keys()
    for key, value in together.items():
        assert alone[key].value == pytest.approx(value.value, rel=1e-4), key


@about_memorization
def test_a_row_is_measured_the_same_beside_longer_rows(metric: type[Metric]) -> None:
    if metric.kind == "robustness":
        pytest.skip("an attack draws or trains on all rows together")
    testbed = tiny_testbed(tiny_model("gpt_neox"), ())
    label = made(metric).label(testbed)
    together = values(testbed, metric)[label, "forget", "all"]
    if together.per_sequence is None:
        pytest.skip("a value over tokens")
    for row in range(len(testbed.forget)):
        alone = dataclasses.replace(testbed, forget=testbed.forget.select([row]).cut())
        assert values(alone, metric)[label, "forget", "all"].value == pytest.approx(
            together.per_sequence[row], abs=1e-3
        )


def empty() -> Sequences:
    return tiny_sequences(2, seed=1).select(slice(0, 0))


@about_memorization
def test_of_an_empty_set_nothing_is_known(metric: type[Metric]) -> None:
    testbed = dataclasses.replace(tiny_testbed(tiny_model("gpt2"), ()), forget=empty(), forget_unseen=None)
    for key, value in values(testbed, metric).items():
        assert math.isnan(value.value), key
        assert value.count == 0


@pytest.mark.parametrize("metric", [m for m in MEMORIZATION if "prompt" in m.Config.model_fields], ids=lambda m: m.name)
def test_rows_without_a_suffix_do_not_count(metric: type[Metric]) -> None:
    testbed = dataclasses.replace(tiny_testbed(tiny_model("gpt2"), ()), forget_unseen=None)
    settings = SETTINGS.get(metric.name, {})
    for slot, value in evaluate(testbed, [metric(prompt=50, **settings)]).items():
        assert math.isnan(value.measurement.value), slot
        assert value.measurement.count == 0


@about_memorization
def test_a_decode_time_method_is_respected(metric: type[Metric], regurgitating: Callable[..., Testbed]) -> None:
    testbed = regurgitating()
    label = made(metric).label(testbed)
    open_, silenced = (
        values(dataclasses.replace(testbed, decoding=decoding), metric)[label, "forget", "all"].value
        for decoding in ((), (Only(),))
    )
    if metric.direction == "higher":
        assert silenced > open_
    else:
        assert silenced == (50.0 if metric.name == "membership" else 0.0)  # nothing can be distinguished
        assert open_ > silenced or metric.name in ("discoverable", "sampling", "relearning")


@every
def test_nothing_is_left_behind(metric: type[Metric], regurgitating: Callable[..., Testbed]) -> None:
    testbed = regurgitating("gpt_neox")
    testbed.model.train()
    testbed.model.get_input_embeddings().weight.requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in testbed.model.parameters()]
    digest, state, settings = testbed.data_digest(), torch.get_rng_state(), testbed.model.generation_config
    values(testbed, metric)
    assert all(torch.equal(value, before[name]) for name, value in testbed.model.state_dict().items())
    assert [parameter.requires_grad for parameter in testbed.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in testbed.model.parameters())
    assert testbed.model.training
    assert testbed.data_digest() == digest
    assert torch.equal(torch.get_rng_state(), state)
    assert testbed.model.generation_config is settings
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in testbed.model.modules())


def test_artifacts_are_measured_with_their_clean_prompts(regurgitating: Callable[..., Testbed]) -> None:
    testbed = regurgitating()
    noised = testbed.forget.tokens.clone()
    noised[:, 1] = 3 + (noised[:, 1] - 2) % 26  # the prompt is noised too, but the clean one is shown
    clean = testbed.forget.tokens.clone()
    clean[:, 9] = 3 + (clean[:, 9] - 2) % 26
    testbed.forget = Sequences.from_rows(noised, prompt=4, pad_id=2, clean_rows=clean.tolist())
    found = values(testbed, *[m for m in MEMORIZATION if m.kind == "memorization"])
    labels = {label.partition("@")[0]: label for label, about, part in found if about == "forget" and part == "all"}
    for name in (
        "extraction",
        "exact_memorization",
        "levenshtein",
        "levenshtein_strict",
        "approximate",
        "prefix_shift",
    ):
        assert found[labels[name], "forget", "all"].value == 100.0, name
    assert found[labels["recovered"], "forget", "all"].value == 0.0


def test_reading_and_decoding_are_shared(
    monkeypatch: pytest.MonkeyPatch, regurgitating: Callable[..., Testbed]
) -> None:
    testbed = regurgitating()
    testbed.forget.tokens[0, 8] = 3 + (testbed.forget.tokens[0, 8] - 2) % 26  # one row has to be decoded
    done: list[str] = []
    read, decoded = passes.read_teacher_forced, generation._continuations

    def reading(testbed: Testbed, rows: Sequences, context: Any, description: str, *rest: Any) -> Any:
        done.append(description)
        return read(testbed, rows, context, description, *rest)

    def decoding(testbed: Testbed, rows: Sequences, *rest: Any) -> Any:
        done.append(f"decoding {len(rows)}")
        return decoded(testbed, rows, *rest)

    monkeypatch.setattr(passes, "read_teacher_forced", reading)
    monkeypatch.setattr(generation, "_continuations", decoding)
    shared = [m for m in METRICS if m.kind != "robustness" and m.name not in ("prefix_shift", "accuracy_padded")]
    values(testbed, *shared)
    assert sorted(done) == ["decoding 1", "reading forget", "reading forget_unseen", "reading holdout:one"]


def test_labels_say_how_long_and_how_often(registry: Any) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    labels = {name: registry.metric(name)().label(testbed) for name in registry.names("metric")}
    assert labels["levenshtein"] == "levenshtein@4+6"
    assert labels["discoverable"] == "discoverable@4+6,n=100,p=0.9"
    assert labels["prefix_shift"] == "prefix_shift@4+6,shift=3"
    assert labels["quantization"] == "quantization@4+6,int8"
    assert labels["relearning"] == "relearning@4+6,steps=20"
    assert labels["membership"] == "membership@loss"
    assert all(one != other for one, other in itertools.combinations(labels.values(), 2))
