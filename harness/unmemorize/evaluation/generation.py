"""Greedy continuations of prompts, in bounded batches and without the model's own generation settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.context import Context
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.evaluation.finite import check_finite
from unmemorize.evaluation.probe import Probe
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor

CACHE_BUDGET = 1 << 30
"""Bytes of keys and values that one batch of continuations may hold."""

Processor = Callable[["Tensor", "Tensor"], "Tensor"]
"""A logits processor: ids (B, T) so far and next-token scores (B, V) to new scores (B, V)."""


class Generated(NamedTuple):
    """Greedy continuations of the prompts of an extraction check. N counted sequences."""

    rows: Sequences
    """Prompts with the true suffixes; `suffix_starts` says where these begin."""
    tokens: Tensor
    """(N, S) int64, the model's continuation of each prompt, as many tokens as were asked for; then padding."""
    lengths: Tensor
    """(N,) int64, how many were asked for: the length of the suffix, or of its clean counterpart if that is longer."""

    def pairs(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the model's continuation of each row, cut at the length of the true suffix, and the true suffix."""
        starts, ends = self.rows.suffix_starts.tolist(), self.rows.lengths.tolist()
        for said, row, start, end in zip(self.tokens.tolist(), self.rows.tokens.tolist(), starts, ends, strict=True):
            yield said[: end - start], row[start:end]

    def matches(self, wanted: Sequences) -> Tensor:
        """Return (N,) bool: whether the continuation is exactly the suffix of each row of `wanted` (same prompts)."""
        import torch

        true, lengths = suffixes(wanted, self.tokens.shape[1])
        beyond = torch.arange(self.tokens.shape[1]) >= lengths[:, None]
        return ((self.tokens == true) | beyond).all(dim=1)


def suffixes(rows: Sequences, width: int) -> tuple[Tensor, Tensor]:
    """Return the (N, width) suffixes of rows, moved to the left, and their (N,) lengths."""
    import torch

    lengths = rows.lengths - rows.suffix_starts
    columns = rows.suffix_starts[:, None] + torch.arange(width)
    return rows.tokens.gather(1, columns.clamp(max=rows.tokens.shape[1] - 1)), lengths


def generate(
    testbed: Testbed,
    probe: Probe,
    context: Context,
    description: str,
    known: Tensor,
    processors: Sequence[Processor] = (),
) -> Generated:
    """Return the greedy continuation of every prompt of a probe.

    Memory: the keys and values of one batch (bounded by `CACHE_BUDGET`) beside the model.

    Args:
        testbed: the model, and the logits processors of an active decode-time method.
        probe: prompts and how many tokens to say after each.
        context: shows progress.
        description: the words beside the progress bar.
        known: (N,) bool, the rows that are known to be continued with exactly their suffix: they are not decoded.
        processors: further logits processors, applied after the testbed's.
    """
    import torch

    asked = probe.asked()
    width = int(asked.max()) if len(asked) else 0
    tokens = torch.full((len(asked), width), testbed.pad_id, dtype=torch.int64)
    true, lengths = suffixes(probe.rows, width)
    skip = known & (lengths == asked)
    tokens[skip] = true[skip]
    left = (~skip).nonzero().flatten()
    with evaluation_mode(testbed.model), plain_generation(testbed):
        chunks = _chunks(testbed, probe.rows, asked, left)
        for chunk in context.track(chunks, f"decoding {description}"):
            said = _continuations(testbed, probe.rows.select(chunk), int(asked[chunk].max()), processors)
            tokens[chunk, : said.shape[1]] = said
    tokens = tokens.masked_fill(torch.arange(width) >= asked[:, None], testbed.pad_id)
    return Generated(rows=probe.rows, tokens=tokens, lengths=asked)


def _continuations(testbed: Testbed, rows: Sequences, count: int, processors: Sequence[Processor]) -> Tensor:
    """Return (B, count): the model's continuations of prompts of one length."""
    import torch
    from transformers import LogitsProcessorList

    with torch.no_grad():
        model: Any = testbed.model

        def finite(ids: Tensor, scores: Tensor) -> Tensor:
            check_finite(scores.amax(-1), model, f"the continuations of {len(ids)} prompts")
            return scores

        start = int(rows.suffix_starts[0])
        prompts = rows.tokens[:, :start].to(testbed.device)
        output: Tensor = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=count,
            logits_processor=LogitsProcessorList([finite, *testbed.decoding, *processors]),
        )
        return output[:, start:].cpu()


def _chunks(testbed: Testbed, rows: Sequences, asked: Tensor, wanted: Tensor) -> list[Tensor]:
    """Group the `wanted` rows by prompt length (no padding is ever read), those that ask for as much side by side."""
    starts = rows.suffix_starts[wanted]
    chunks: list[Tensor] = []
    for start in starts.unique().tolist():
        group = wanted[starts == start]
        group = group[asked[group].argsort(stable=True)]
        chunks += group.split(_rows_at_once(testbed, start + int(asked[group].max())))
    return chunks


def _rows_at_once(testbed: Testbed, length: int) -> int:
    config, element = testbed.model.config, testbed.model.dtype.itemsize
    row = 2 * config.num_hidden_layers * config.hidden_size * length * element
    return max(1, min(64, CACHE_BUDGET // row))


@contextmanager
def plain_generation(testbed: Testbed) -> Iterator[None]:
    """Replace the model's generation settings by plain greedy decoding that no token ends early.

    A model's own settings (sampling, repetition penalty, minimum length, end tokens) would answer another question
    than "is the next token the most likely one".
    """
    from transformers import GenerationConfig

    before = testbed.model.generation_config
    testbed.model.generation_config = GenerationConfig(do_sample=False, num_beams=1, pad_token_id=testbed.pad_id)
    try:
        yield
    finally:
        testbed.model.generation_config = before
