from __future__ import annotations

import logging

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from unmemorize.contracts.testbed import Sequences
from unmemorize.training.losses import sequence_losses, token_losses


def one_by_one(model: PreTrainedModel, rows: Sequences, start: int) -> list[torch.Tensor]:
    """Each row's token losses from target position `start` on, without padding and without batches."""
    losses = []
    for tokens, length in zip(rows.tokens, rows.lengths.tolist(), strict=True):
        row = tokens[:length]
        logits = model(input_ids=row[None]).logits[0]
        losses.append(cross_entropy(logits[:-1].float(), row[1:], reduction="none")[max(start - 1, 0) :])
    return losses


def test_token_losses_equal_those_of_each_row_alone(model: PreTrainedModel, rows: Sequences) -> None:
    losses = token_losses(model, rows)
    assert losses.values.shape == losses.mask.shape == (len(rows), rows.tokens.shape[1] - 1)
    for number, alone in enumerate(one_by_one(model, rows, 1)):
        assert losses.mask[number].sum() == len(alone)
        torch.testing.assert_close(losses.values[number, : len(alone)], alone, atol=1e-5, rtol=1e-4)
        assert losses.values[number, len(alone) :].eq(0).all()


def test_the_mean_counts_tokens_not_rows_and_no_padding(model: PreTrainedModel, rows: Sequences) -> None:
    expected = torch.cat(one_by_one(model, rows, 1)).mean()
    torch.testing.assert_close(token_losses(model, rows).mean(), expected)


@pytest.mark.parametrize(("tokens", "start"), [("all", 1), ("suffix", 3)])
def test_sequence_losses_equal_a_loop_over_rows(
    model: PreTrainedModel, rows: Sequences, tokens: str, start: int
) -> None:
    expected = [alone.mean() if len(alone) else torch.tensor(0.0) for alone in one_by_one(model, rows, start)]
    losses = sequence_losses(model, rows, tokens)  # type: ignore[arg-type]
    torch.testing.assert_close(losses, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_losses_are_float32_whatever_the_model_computes_in(model: PreTrainedModel, rows: Sequences) -> None:
    full = sequence_losses(model, rows)
    half = sequence_losses(model.to(torch.bfloat16), rows)  # type: ignore[arg-type]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.05, rtol=0.05)


def test_gradients_flow_through_the_losses(model: PreTrainedModel, rows: Sequences) -> None:
    sequence_losses(model, rows).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_padding_id_is_never_fed_to_the_model(
    model: PreTrainedModel, rows: Sequences, caplog: pytest.LogCaptureFixture
) -> None:
    assert not (rows.inputs() == 11).any()
    with caplog.at_level(logging.WARNING):
        token_losses(model, rows)
    assert "attention_mask" not in caplog.text


def test_what_stands_in_the_padding_does_not_matter(model: PreTrainedModel, rows: Sequences) -> None:
    scribbled = rows.tokens.masked_fill(~rows.real(), 5)
    other = Sequences(scribbled, rows.lengths, rows.suffix_starts, rows.ids, rows.copies)
    assert torch.equal(sequence_losses(model, rows), sequence_losses(model, other))


def test_rows_of_one_token_have_no_loss(model: PreTrainedModel) -> None:
    single = Sequences.from_rows([[3], [4]], prompt=1)
    assert sequence_losses(model, single).tolist() == [0.0, 0.0]
    assert token_losses(model, single).mean() == 0
