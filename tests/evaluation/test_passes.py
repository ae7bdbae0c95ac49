"""The one pass decides what greedy decoding would do: token for token, on every architecture."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import GenerationConfig

from unmemorize.contracts.testbed import Sequences, Testbed, Window
from unmemorize.evaluation.passes import Evaluation, build_probe
from unmemorize.testing import ARCHITECTURES, tiny_model, tiny_sequences, tiny_testbed


def own_continuations(model: torch.nn.Module, starts: Sequences, length: int) -> list[list[int]]:
    """Continue each prompt greedily, one token at a time, without `generate`."""
    rows = []
    for prompt in starts.tokens[:, :4].tolist():
        row = list(prompt)
        for _ in range(length):
            with torch.no_grad():
                row.append(int(model(input_ids=torch.tensor([row])).logits[0, -1].argmax()))
        rows.append(row)
    return rows


def half_extractable(architecture: str) -> Testbed:
    """Half of the rows are the model's own continuations; the others differ from that in one place each."""
    model = tiny_model(architecture)
    rows = own_continuations(model, tiny_sequences(10, seed=3), 8)
    for number, row in enumerate(rows[5:]):
        row[4 + number] = 3 + (row[4 + number] - 2) % 26
    testbed = tiny_testbed(model, ())
    return dataclasses.replace(testbed, forget=Sequences.from_rows(rows, prompt=4, pad_id=2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_pass_equals_generate_token_for_token(architecture: str) -> None:
    testbed = half_extractable(architecture)
    teacher_forced = Evaluation(testbed).extraction("forget", Window(4, 8))
    decoded = Evaluation(testbed).extraction("forget", Window(4, 8), generate=True)
    assert teacher_forced.extractable.tolist() == decoded.extractable.tolist() == [True] * 5 + [False] * 5
    testbed.model.generation_config = GenerationConfig(do_sample=False, pad_token_id=2)  # no token ends it early
    output = testbed.model.generate(testbed.forget.tokens[:, :4], attention_mask=torch.ones(10, 4), max_new_tokens=8)
    predicted = Evaluation(testbed).teacher_forced("forget").predicted[:5, 3:]
    assert predicted.tolist() == output[:5, 4:].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_is_read_the_same_alone_and_beside_longer_rows(architecture: str) -> None:
    testbed = tiny_testbed(tiny_model(architecture), ())
    together = Evaluation(testbed).teacher_forced("retain")
    for row in range(len(testbed.retain)):
        length = int(testbed.retain.lengths[row])
        with torch.no_grad():
            logits = testbed.model(input_ids=testbed.retain.tokens[row : row + 1, :length]).logits[0]
        losses = -logits.log_softmax(-1)[torch.arange(length - 1), testbed.retain.tokens[row, 1:length]]
        assert torch.allclose(together.losses[row, : length - 1], losses, atol=1e-4)
        assert together.predicted[row, : length - 1].tolist() == logits[:-1].argmax(-1).tolist()
        assert together.real[row].sum() == length - 1
        assert (together.losses[row, length - 1 :] == 0).all()


def test_a_sequence_that_ends_inside_the_window_can_be_regurgitated_with_its_end_token() -> None:
    model = tiny_model("gpt2")
    row = own_continuations(model, tiny_sequences(1, seed=3), 5)[0]
    model.generation_config.eos_token_id = row[-1]  # the row ends with what the model calls the end
    model.generation_config.min_length = 12  # forbids the end token in plain `generate`
    testbed = dataclasses.replace(tiny_testbed(model, ()), forget=Sequences.from_rows([row], prompt=4, pad_id=2))
    for generate in (False, True):
        assert Evaluation(testbed).extraction("forget", Window(4, 20), generate=generate).extractable.tolist() == [True]
    assert model.generation_config.min_length == 12


class Forbid:
    """A logits processor that forbids one token."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, self.token] = -torch.inf
        return scores


def test_decode_time_processors_reach_the_pass_and_the_generation_alike() -> None:
    testbed = half_extractable("gpt2")
    forbidden = int(testbed.forget.tokens[0, 6])
    testbed = dataclasses.replace(testbed, decoding=(Forbid(forbidden),))
    teacher_forced = Evaluation(testbed).extraction("forget", Window(4, 8)).extractable
    decoded = Evaluation(testbed).extraction("forget", Window(4, 8), generate=True).extractable
    assert teacher_forced.tolist() == decoded.tolist()
    assert not teacher_forced[0]


def test_prompts_come_from_the_clean_counterpart_and_equal_suffixes_do_not_count() -> None:
    noised = [[3, 4, 9, 6, 7, 8], [3, 4, 5, 6, 7, 8], [3, 9, 5, 6, 7, 8], [3, 4, 5, 6, 7, 1]]
    clean = [[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 9], [3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7]]
    sequences = Sequences.from_rows(noised, prompt=3, clean_rows=clean)
    probe = build_probe(sequences, Window(3, 3))
    assert probe.rows.ids.tolist() == [1, 3]  # rows 0 and 2 differ in the prompt only
    assert probe.rows.tokens.tolist() == [[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 1]]
    assert probe.clean is not None
    assert probe.clean.lengths.tolist() == [6, 5]


def test_anchored_suffixes_start_where_the_data_says() -> None:
    rows = [[3, 7, 2, 2, 2, 2], [3, 4, 5, 7, 2, 2]]
    clean = [[3, 7, 9, 8, 7, 6], [3, 4, 5, 7, 8, 9]]
    sequences = Sequences.from_rows(rows, prompt=1, clean_rows=clean)
    sequences = dataclasses.replace(sequences, suffix_starts=torch.tensor([2, 4]), anchored=True)
    probe = build_probe(sequences, Window(50, 3))
    assert probe.rows.suffix_starts.tolist() == [2, 4]
    assert probe.rows.lengths.tolist() == [5, 6]


def test_rows_without_a_suffix_do_not_count() -> None:
    sequences = Sequences.from_rows([[3, 4, 5, 6], [3, 4], [3, 4, 5]], prompt=3)
    assert build_probe(sequences, Window(3, 9)).rows.ids.tolist() == [0]


def test_the_model_keeps_its_mode() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    testbed.model.train()
    Evaluation(testbed).teacher_forced("forget")
    assert testbed.model.training
