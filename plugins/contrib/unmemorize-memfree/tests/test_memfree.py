"""`memfree` blocks exactly the n-grams of the forget set, in real decoding and in one pass alike."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from unmemorize import Context, Evaluation, Sequences, Testbed
from unmemorize.testing import ARCHITECTURES, memorizing_testbed, tiny_model, tiny_testbed
from unmemorize_memfree import MemFree, NGramBlocker, followers


def all_ngrams(rows: list[list[int]], n: int) -> set[tuple[int, ...]]:
    return {tuple(row[start : start + n]) for row in rows for start in range(len(row) - n + 1)}


def real_rows(sequences: Sequences) -> list[list[int]]:
    return [sequences.tokens[i, : sequences.lengths[i]].tolist() for i in range(len(sequences))]


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest) -> Testbed:
    """A model that regurgitates its forget set."""
    return memorizing_testbed(request.param)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_index_holds_exactly_the_ngrams(n: int) -> None:
    rows = [*torch.randint(0, 4, (6, 9), generator=torch.Generator().manual_seed(0)).tolist(), [1], [2, 3]]
    index = followers(iter(rows), n)
    assert {(*before, token) for before, tokens in index.items() for token in tokens} == all_ngrams(rows, n)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_what_is_blocked_is_what_trying_every_token_says(n: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 4, (6, 9), generator=generator).tolist()
    known = all_ngrams(rows, n)
    ids = torch.randint(0, 4, (20, 7), generator=generator)
    scores = torch.randn(20, 6, generator=generator)
    found = NGramBlocker(followers(iter(rows), n), n)(ids, scores)
    for row in range(20):
        for token in range(6):
            blocked = (*ids[row, 7 - n + 1 :].tolist(), token) in known
            assert found[row, token] == (-torch.inf if blocked else scores[row, token])


def test_scores_of_which_nothing_is_blocked_are_given_back_and_none_are_changed() -> None:
    processor = NGramBlocker(followers(iter([[1, 2, 3]]), 3), 3)
    scores = torch.randn(1, 5)
    assert processor(torch.tensor([[1]]), scores) is scores  # too short for an n-gram
    assert processor(torch.tensor([[2, 1]]), scores) is scores
    before = scores.clone()
    blocked = processor(torch.tensor([[0, 1, 2]]), scores)
    assert blocked[0, 3] == -torch.inf
    assert torch.equal(scores, before)


def block(testbed: Testbed, n: int) -> None:
    context = Context()
    MemFree(n=n).apply(testbed, context)
    testbed.decoding = context.report.decoding


def test_generation_completes_no_known_ngram(testbed: Testbed) -> None:
    n = 4
    known = all_ngrams(real_rows(testbed.forget), n)
    prompts = testbed.forget.tokens[:, : testbed.window.prompt]

    def said() -> list[list[int]]:
        output = testbed.model.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=9, do_sample=False,
            logits_processor=list(testbed.decoding),
        )  # fmt: skip
        return [row[testbed.window.prompt - n + 1 :] for row in output.tolist()]

    assert all_ngrams(said(), n) & known
    block(testbed, n)
    assert not all_ngrams(said(), n) & known


@pytest.mark.parametrize("n", [2, 4, 9])
def test_nothing_is_regurgitated_in_real_decoding_and_in_one_pass(testbed: Testbed, n: int) -> None:
    assert Evaluation(testbed).extraction("forget", testbed.window).extractable.float().mean() > 0.9
    block(testbed, n)
    for generate in (True, False):
        assert not Evaluation(testbed).extraction("forget", testbed.window, generate=generate).extractable.any()


def test_one_pass_and_real_decoding_agree_on_rows_that_it_was_not_shown(testbed: Testbed) -> None:
    testbed.forget_unseen = testbed.forget.select(slice(0, 8))
    shown = dataclasses.replace(testbed, forget=testbed.forget.select(slice(4, 16)))
    block(shown, 5)
    decoded, teacher_forced = (
        Evaluation(shown).extraction("forget_unseen", shown.window, generate=generate).extractable.tolist()
        for generate in (True, False)
    )
    assert decoded == teacher_forced
    assert any(decoded[:4])
    assert not any(decoded[4:])


def test_utility_sees_it_only_where_an_ngram_is_shared(testbed: Testbed) -> None:
    before = Evaluation(testbed).teacher_forced("holdout:counting")
    holdout = real_rows(testbed.holdouts["counting"])
    n = 7
    known = all_ngrams(real_rows(testbed.forget), n)
    block(testbed, n)
    after = Evaluation(testbed).teacher_forced("holdout:counting")
    for row, tokens in enumerate(holdout):
        for place in range(1, len(tokens)):
            shared = tuple(tokens[max(0, place - n + 1) : place + 1]) in known
            assert torch.isinf(after.losses[row, place - 1]) == shared
    same = ~torch.isinf(after.losses)
    assert same.any()
    assert (after.losses[same] >= 0).all()
    assert torch.isfinite(before.losses).all()


def test_the_weights_stay() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    context = Context()
    MemFree(n=3).apply(testbed, context)
    assert len(context.report.decoding) == 1
    assert context.report.notes["blocked_ngrams"] == len(all_ngrams(real_rows(testbed.forget), 3))
    assert all(torch.equal(before[name], value) for name, value in testbed.model.state_dict().items())


def test_rows_that_are_too_short_are_refused_with_the_reason() -> None:
    testbed = tiny_testbed(tiny_model("gpt2"), ())
    longest = int(testbed.forget.lengths.max())
    assert MemFree(n=longest).supports(testbed) is None
    reason = MemFree(n=longest + 1).supports(testbed)
    assert f"n = {longest + 1}" in str(reason)
    assert str(longest) in str(reason)
