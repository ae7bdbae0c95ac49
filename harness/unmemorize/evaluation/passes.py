"""One teacher-forced pass per set (and generation where it is asked for), shared by all metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmemorize.contracts.context import Context
from unmemorize.contracts.testbed import Sequences, Testbed, Window

LOGIT_BUDGET = 32_000_000
"""Logits held at once: 128 MB in float32."""


class Forced(NamedTuple):
    """What a model says under teacher forcing. Column t speaks about token t + 1. All on the CPU."""

    losses: Tensor
    """(N, T-1) float32 cross-entropy in nats, 0 where there is no real target."""
    predicted: Tensor
    """(N, T-1) int64, the arg-max of the logits (after the processors of a decode-time method)."""
    targets: Tensor
    """(N, T-1) int64, the true next token."""
    real: Tensor
    """(N, T-1) bool, True where the target is a real token."""

    @property
    def hits(self) -> Tensor:
        """(N, T-1) bool: the target is real and is the arg-max."""
        return (self.predicted == self.targets) & self.real


class Probe(NamedTuple):
    """An extraction check, row by row: what is shown and what must come back."""

    rows: Sequences
    """Prompt followed by the suffix to be recited; `suffix_starts` says where it begins."""
    clean: Sequences | None
    """The same prompt followed by the clean suffix, where there are clean counterparts."""


class Recital(NamedTuple):
    """What came of an extraction check. N counted sequences."""

    ids: Tensor
    """(N,) int64."""
    recited: Tensor
    """(N,) bool: greedy decoding gives exactly the suffix."""
    recovered: Tensor | None
    """(N,) bool: greedy decoding gives exactly the clean suffix."""


class Evaluation:
    """The passes over one testbed, each made when first asked for and then kept.

    Args:
        testbed: what is evaluated; its model is not changed.
        context: shows progress.
    """

    def __init__(self, testbed: Testbed, context: Context | None = None) -> None:
        self.testbed = testbed
        self._context = context or Context()
        self._passes: dict[str, Forced] = {}

    def sequences(self, name: str) -> Sequences | None:
        """Return the set called `name` (`forget`, `forget_unseen`, `retain`, `holdout:NAME`), if it is there."""
        return self.testbed.sets().get(name)

    def holdouts(self) -> list[str]:
        """Return the names of the hold-out sets, as `sequences` takes them."""
        return [f"holdout:{name}" for name in self.testbed.holdouts]

    def forced(self, name: str) -> Forced:
        """Return the teacher-forced pass over the real tokens of the set called `name`."""
        return self._pass(name, self.testbed.sets()[name].cut)

    def forced_padded(self, name: str) -> Forced:
        """Return the pass that feeds and counts padding like any other token (as the paper's code does)."""

        def whole() -> Sequences:
            sequences = self.testbed.sets()[name]
            return dataclasses.replace(sequences, lengths=torch.full_like(sequences.lengths, sequences.tokens.shape[1]))

        return self._pass(f"{name} with padding", whole)

    def recital(self, name: str, window: Window, *, generate: bool = False) -> Recital:
        """Check which sequences of a set are extractable, (n, k) = (prompt + suffix, prompt).

        A sequence counts if its prompt is whole and its suffix is not empty; where it has a clean counterpart, only if
        the two suffixes differ. Greedy decoding gives the suffix if and only if, under teacher forcing on the suffix,
        every arg-max is the true token, so that one pass decides; `generate=True` really decodes.

        Source: Carlini et al. 2023; Sakarvadia et al. 2025, definition of (n, k) memorization.
        """
        probe = build_probe(self.testbed.sets()[name], window)
        check = self._decoded if generate else self._all_hit
        label = f"{name} {window.prompt}+{window.suffix}"
        return Recital(
            ids=probe.rows.ids,
            recited=check(label, probe.rows),
            recovered=None if probe.clean is None else check(f"{label} clean", probe.clean),
        )

    def _all_hit(self, label: str, rows: Sequences) -> Tensor:
        forced = self._pass(label, lambda: rows)
        wanted = rows.suffix()[:, 1:]
        return (forced.hits | ~wanted).all(dim=1)

    def _decoded(self, label: str, rows: Sequences) -> Tensor:
        return greedy_matches(self.testbed, rows, self._context, label)

    def _pass(self, label: str, rows: Callable[[], Sequences]) -> Forced:
        if label not in self._passes:
            self._passes[label] = teacher_forced(self.testbed, rows(), self._context, f"reading {label}")
        return self._passes[label]


def build_probe(sequences: Sequences, window: Window) -> Probe:
    """Return the extraction check of a set: prompts from the clean counterparts where there are any.

    The suffix starts after `window.prompt` tokens, or where the data says (anchored), and ends after `window.suffix`
    tokens or with the sequence.
    """
    starts = sequences.suffix_starts if sequences.anchored else torch.full_like(sequences.lengths, window.prompt)
    ends = torch.minimum(starts + window.suffix, sequences.lengths)
    counted = (starts > 0) & (ends > starts)
    if sequences.clean_tokens is None or sequences.clean_lengths is None:
        rows = dataclasses.replace(sequences, lengths=ends, suffix_starts=starts)
        return Probe(rows=rows.select(counted).cut(), clean=None)
    clean_ends = torch.minimum(starts + window.suffix, sequences.clean_lengths)
    position = torch.arange(sequences.tokens.shape[1])
    shown = position < starts[:, None]
    tokens = sequences.clean_tokens.where(shown, sequences.tokens)
    plain = dataclasses.replace(sequences, clean_tokens=None, clean_lengths=None, suffix_starts=starts)
    rows = dataclasses.replace(plain, tokens=tokens, lengths=ends)
    clean = dataclasses.replace(plain, tokens=sequences.clean_tokens, lengths=clean_ends)
    inside = rows.suffix() | clean.suffix()
    differs = (ends != clean_ends) | ((tokens != sequences.clean_tokens) & inside).any(dim=1)
    counted &= (clean_ends > starts) & differs
    return Probe(rows=rows.select(counted).cut(), clean=clean.select(counted).cut())


@torch.no_grad()
def teacher_forced(testbed: Testbed, rows: Sequences, context: Context, description: str) -> Forced:
    """Run one pass over `rows` and keep a few numbers per token.

    Memory: the logits of one batch (bounded by `LOGIT_BUDGET`) plus 17 bytes per token.
    """
    width = max(1, rows.tokens.shape[1] - 1)
    losses = torch.zeros(len(rows), width)
    predicted = torch.zeros(len(rows), width, dtype=torch.int64)
    start = 0
    with evaluating(testbed):
        for batch in context.track(list(rows.batches(_batch_size(testbed, width))), description):
            span = slice(start, start := start + len(batch))
            batch_losses, batch_predicted = _read(testbed, batch)
            losses[span, : batch_losses.shape[1]] = batch_losses
            predicted[span, : batch_losses.shape[1]] = batch_predicted
    real = rows.real()[:, 1:]
    return Forced(losses=losses * real, predicted=predicted, targets=rows.tokens[:, 1:], real=real)


def _read(testbed: Testbed, batch: Sequences) -> tuple[Tensor, Tensor]:
    inputs = batch.inputs().to(testbed.device)
    counted = bool((inputs == testbed.pad_id).any())  # padding that is read like any token: say that it is meant
    mask = torch.ones_like(inputs) if counted else None
    logits = testbed.model(input_ids=inputs, attention_mask=mask, use_cache=False).logits[:, :-1]
    for position in range(logits.shape[1] if testbed.decoding else 0):
        for processor in testbed.decoding:
            logits[:, position] = processor(inputs[:, : position + 1], logits[:, position])
    targets = inputs[:, 1:].to(logits.device)
    logits = logits.float()
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1)
    return (logits.logsumexp(-1) - chosen).cpu(), logits.argmax(-1).cpu()


def _batch_size(testbed: Testbed, width: int) -> int:
    embedding: Any = testbed.model.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    return max(1, min(256, LOGIT_BUDGET // (width * vocabulary)))


@torch.no_grad()
def greedy_matches(testbed: Testbed, rows: Sequences, context: Context, description: str) -> Tensor:
    """Return (N,) bool: whether greedy `generate` from each prompt gives exactly the rest of the row."""
    from transformers import LogitsProcessorList

    model: Any = testbed.model
    matches = torch.zeros(len(rows), dtype=torch.bool)
    groups: dict[int, list[int]] = {}
    for row, start in enumerate(rows.suffix_starts.tolist()):
        groups.setdefault(start, []).append(row)
    chunks = [part for members in groups.values() for part in _chunks(members, 64)]
    with evaluating(testbed), plain_generation(testbed):
        for chunk in context.track(chunks, f"decoding {description}"):
            batch = rows.select(chunk).cut()
            start = int(batch.suffix_starts[0])
            prompt = batch.tokens[:, :start].to(testbed.device)
            output = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=int(batch.lengths.max()) - start,
                logits_processor=LogitsProcessorList(testbed.decoding),
            )
            same = output.cpu() == batch.tokens
            matches[torch.tensor(chunk)] = (same | ~batch.suffix()).all(dim=1)
    return matches


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@contextmanager
def evaluating(testbed: Testbed) -> Iterator[None]:
    """Put the model into evaluation mode and, afterwards, back into the mode it was in."""
    training = testbed.model.training
    testbed.model.eval()
    try:
        yield
    finally:
        testbed.model.train(training)


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
