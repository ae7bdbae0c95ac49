"""Passes and continuations are made once, are the same wherever they come from, and are bounded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from unmemorize import Metric, Reading
from unmemorize.contracts.testbed import Sequences, Testbed, Window
from unmemorize.evaluation import evaluate, generation, passes
from unmemorize.evaluation.passes import Evaluation
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed


def entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    shares = logits.softmax(-1)
    return -(shares * shares.log()).sum(-1)


def rank(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (logits > logits.gather(1, targets[:, None])).sum(-1)


@pytest.fixture
def descriptions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read and decoded, in order."""
    done: list[str] = []
    read, decode = passes.read_teacher_forced, generation._continuations

    def reading(testbed: Testbed, rows: Sequences, context: Any, description: str, *rest: Any) -> Any:
        done.append(description)
        return read(testbed, rows, context, description, *rest)

    def decoding(testbed: Testbed, rows: Sequences, count: int, processors: Any) -> Any:
        done.append(f"decoding {len(rows)} rows by {count}")
        return decode(testbed, rows, count, processors)

    monkeypatch.setattr(passes, "read_teacher_forced", reading)
    monkeypatch.setattr(generation, "_continuations", decoding)
    return done


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_statistics_are_of_the_logits_of_each_row_alone(architecture: Any) -> None:
    testbed = tiny_testbed(tiny_model(architecture), ())
    teacher_forced = Evaluation(testbed).teacher_forced("retain", entropy, rank)
    assert teacher_forced.statistics.keys() == {entropy, rank}
    for row, length in enumerate(testbed.retain.lengths.tolist()):
        tokens = testbed.retain.tokens[row, :length]
        with torch.no_grad():
            logits = testbed.model(input_ids=tokens[None]).logits[0, :-1]
        for statistic, values in teacher_forced.statistics.items():
            assert torch.allclose(values[row, : length - 1], statistic(logits, tokens[1:]).float(), atol=1e-4)
            assert (values[row, length - 1 :] == 0).all()


def test_statistics_see_the_processors_of_a_decode_time_method() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.decoding = (lambda ids, scores: scores.index_fill(1, torch.arange(10), -torch.inf),)
    teacher_forced = Evaluation(testbed).teacher_forced("forget", rank)
    forbidden = (teacher_forced.targets < 10) & teacher_forced.real
    assert (teacher_forced.statistics[rank][forbidden] == 19).all()
    assert teacher_forced.losses[forbidden].isinf().all()
    assert (teacher_forced.losses[~teacher_forced.real] == 0).all()


def test_a_statistic_that_comes_late_is_read_again_and_what_was_announced_is_not(descriptions: list[str]) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    late = Evaluation(testbed)
    plain = late.teacher_forced("forget")
    both = late.teacher_forced("forget", entropy)
    assert torch.equal(plain.losses, both.losses)
    assert descriptions == ["reading forget"] * 2
    descriptions.clear()
    announced = Evaluation(testbed)
    announced.expect([Reading("forget", None, entropy), Reading("forget", Window(4, 3), rank)])
    announced.teacher_forced("forget")
    announced.teacher_forced("forget", entropy)
    announced.teacher_forced_window("forget", Window(4, 3), rank)
    assert descriptions == ["reading forget"]


@pytest.mark.parametrize("window", [Window(4, 3), Window(2, 50), Window(9, 2), Window(40, 2)])
def test_a_window_cut_out_of_the_whole_is_what_a_pass_of_its_own_reads(window: Window) -> None:
    testbed = tiny_testbed(tiny_model("llama"), ())
    own, cut = Evaluation(testbed), Evaluation(testbed)
    cut.teacher_forced("forget")
    one, other = (evaluation.teacher_forced_window("forget", window, entropy) for evaluation in (own, cut))
    for name in ("targets", "real", "hits"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.allclose(one.losses, other.losses, atol=1e-4)
    assert torch.allclose(one.statistics[entropy], other.statistics[entropy], atol=1e-4)
    assert (
        own.extraction("forget", window).extractable.tolist() == cut.extraction("forget", window).extractable.tolist()
    )


def test_what_is_read_of_artifacts_is_not_cut_out(descriptions: list[str]) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    clean = [[*row[:6], 27, *row[7:9]] for row in testbed.forget.tokens.tolist()]
    noised = Sequences.from_rows(testbed.forget.tokens[:, :9], prompt=4, pad_id=2, clean_rows=clean)
    evaluation = Evaluation(dataclasses.replace(testbed, forget=noised))
    evaluation.teacher_forced("forget")
    evaluation.extraction("forget", Window(4, 5))
    assert descriptions == ["reading forget", "reading forget 4+5", "reading forget 4+5 clean"]


class Asking(Metric):
    """A metric that reads whole sequences, and one that reads a window, whichever comes first."""

    kind = "memorization"
    direction = "lower"
    range = (0.0, 1.0)

    def __init__(self, name: str, window: Window | None) -> None:
        self.name, self.window = name, window  # type: ignore[misc]
        super().__init__()

    def readings(self, testbed: Testbed) -> list[Reading]:
        return [Reading("forget", self.window, rank)]

    def measure(self, evaluation: Evaluation) -> list[Any]:
        if self.window is None:
            assert rank in evaluation.teacher_forced("forget").statistics
        else:
            assert rank in evaluation.teacher_forced_window("forget", self.window).statistics
        return []


@pytest.mark.parametrize("whole_first", [True, False])
def test_metrics_that_announce_share_one_pass_in_any_order(whole_first: bool, descriptions: list[str]) -> None:
    metrics = [Asking("whole", None), Asking("window", Window(4, 2)), Asking("other", Window(3, 3))]
    evaluate(tiny_testbed(tiny_model("gpt2"), ()), metrics if whole_first else metrics[::-1])
    assert descriptions == ["reading forget"]


def own_continuation(model: torch.nn.Module, prompt: torch.Tensor, count: int) -> list[int]:
    ids = prompt[None]
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_continuations_are_those_of_each_prompt_alone(
    architecture: Any, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "CACHE_BUDGET", budget)
    testbed = tiny_testbed(tiny_model(architecture), ())
    starts = torch.tensor([3, 5, 3, 4, 5, 8])
    testbed.forget = dataclasses.replace(testbed.forget, suffix_starts=starts, anchored=True)
    generated = Evaluation(testbed).generated("forget", Window(1, 6))
    assert generated.lengths.tolist() == (testbed.forget.lengths - starts).clamp(max=6).tolist()
    for number, (said, true) in enumerate(generated.pairs()):
        row, start = testbed.forget.tokens[number], int(starts[number])
        assert said == own_continuation(testbed.model, row[:start], int(generated.lengths[number]))
        assert true == row[start : start + len(said)].tolist()
    beyond = torch.arange(generated.tokens.shape[1]) >= generated.lengths[:, None]
    assert (generated.tokens[beyond] == testbed.pad_id).all()


def test_rows_that_are_regurgitated_are_not_decoded(descriptions: list[str]) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    prompts = tiny_sequences(5, seed=3).tokens[:, :4]
    rows = [[*prompt.tolist(), *own_continuation(testbed.model, prompt, 6)] for prompt in prompts]
    rows[1][7] = rows[4][4] = 28
    testbed.forget = Sequences.from_rows(rows, prompt=4, pad_id=2)
    evaluation = Evaluation(testbed)
    generated = evaluation.generated("forget", Window(4, 6))
    assert generated is evaluation.generated("forget", Window(4, 6))
    assert descriptions == ["reading forget", "decoding 2 rows by 6"]
    everything = [own_continuation(testbed.model, prompt, 6) for prompt in prompts]
    assert generated.tokens.tolist() == everything


def test_extraction_and_similarity_share_one_decoding_under_a_decode_time_method(descriptions: list[str]) -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.decoding = (lambda ids, scores: scores.index_fill(1, torch.tensor([7]), -torch.inf),)
    clean = [[*row[:6], 27, *row[7:9]] for row in testbed.forget.tokens.tolist()]
    testbed.forget = Sequences.from_rows(testbed.forget.tokens[:, :9], prompt=4, pad_id=2, clean_rows=clean)
    evaluation = Evaluation(testbed)
    extraction = evaluation.extraction("forget", Window(4, 5), generate=True)
    generated = evaluation.generated("forget", Window(4, 5))
    assert descriptions == ["decoding 6 rows by 5"]
    assert extraction.extractable.tolist() == [said == true for said, true in generated.pairs()]
    assert not (generated.tokens == 7).any()


def test_further_processors_come_after_those_of_the_testbed() -> None:
    testbed = tiny_testbed(tiny_model("llama"), ())
    seen: list[str] = []

    def first(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append("first")
        return scores

    def only_nine(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append("second")
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([9]), 0.0)

    testbed.decoding = (first,)
    rows = Evaluation(testbed).probe("forget", Window(4, 3)).rows
    said = Evaluation(testbed).continued("forget", rows, [only_nine])
    assert seen[:2] == ["first", "second"]
    assert said.tokens.tolist() == [[9, 9, 9]] * 6


def test_of_no_rows_nothing_is_read_and_nothing_is_said() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    evaluation = Evaluation(testbed)
    nothing = Window(60, 3)
    assert evaluation.extraction("forget", nothing).extractable.tolist() == []
    assert evaluation.generated("forget", nothing).tokens.shape[0] == 0
    assert list(evaluation.generated("forget", nothing).pairs()) == []
    empty = testbed.forget.select(slice(0, 0))
    assert evaluation.extractable("nothing", empty).tolist() == []
    assert Evaluation(dataclasses.replace(testbed, forget=empty)).teacher_forced("forget", rank).losses.shape[0] == 0
