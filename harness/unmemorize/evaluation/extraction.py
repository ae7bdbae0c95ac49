"""Whether a model regurgitates a window: greedy decoding from its prompt gives exactly its suffix.

`find` and the metrics ask here, and are told the same of the same window: what one pass over the window alone says.
Passes over batches only leave out what is clear, further from a tie than their rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.errors import DataError
from unmemorize.evaluation.finite import check_finite
from unmemorize.models.versions import evaluation_mode
from unmemorize.training.losses import LOGITS_AT_ONCE, vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Sequences

_FIRST = 4
"""Suffix tokens that are looked at first: nine of ten windows of ordinary text are wrong about one of them."""

_SLACK, _SLACK_HALF = 0.01, 1.0

_MOST = 256
"""Windows that are read at once, at most."""


class SuffixReading(NamedTuple):
    """A model's teacher-forced predictions of the suffix of one window."""

    hits: int
    """Suffix tokens that are the arg-max."""
    tokens: int
    """Suffix tokens."""
    logprob: float
    """Log-probability of the whole suffix, in nats."""
    margin: float
    """The smallest difference between the largest and the second largest logit."""

    @property
    def extractable(self) -> bool:
        """Whether every suffix token is the arg-max, which is when greedy decoding gives the suffix."""
        return self.hits == self.tokens


class WindowExtraction:
    """Asks a model which windows it regurgitates.

    The answer is that of one pass over the window alone, so that it does not depend on what else is checked. Two passes
    over whole batches come first and leave out what cannot be extracted: the first reads only as far as the first
    suffix tokens. Both keep what is near a tie, so that rounding in a batch decides nothing.

    Args:
        model: a causal language model; it is not changed.
        prompt: tokens of a window that are shown; the others are its suffix.
        batch: windows that are read at once; by default as many as keep the logits at 64 MiB.

    Memory: the logits of the suffix tokens of a batch, halved whenever an accelerator runs out of memory.
    """

    def __init__(self, model: PreTrainedModel, prompt: int, batch: int | None = None) -> None:
        self.model, self.prompt, self.batch = model, prompt, batch
        embedding: Any = model.get_input_embeddings()
        self._device = embedding.weight.device
        self._slack = rounding_slack(model)
        self._largest: int | None = None

    def windows_at_once(self) -> int:
        """Return how many windows to hand over at once."""
        return self.batch or self._room(_FIRST)

    def readings(self, rows: Sequence[Sequence[int]]) -> list[SuffixReading | None]:
        """Return the model's predictions for N windows of equal length; None for those that cannot be extracted."""
        import torch

        found: list[SuffixReading | None] = [None] * len(rows)
        if not rows:
            return found
        with evaluation_mode(self.model):
            tokens = torch.tensor(rows, dtype=torch.int64)
            suffix = tokens.shape[1] - self.prompt
            left = torch.arange(len(rows))
            for count in sorted({min(_FIRST, suffix), suffix}):
                left = left[self._nearly_hit(tokens[left], count)]
            for row in left.tolist():
                reading = read_alone(self.model, rows[row], self.prompt)
                found[row] = reading if reading.extractable else None
        return found

    def _nearly_hit(self, tokens: Tensor, count: int) -> Tensor:
        """Return (N,) bool: each of the first `count` suffix tokens has nearly the largest logit, or has it."""
        import torch

        until = self.prompt + count
        wanted = tokens[:, self.prompt : until, None]

        def check(start: int, stop: int) -> Tensor:
            logits = suffix_logits(self.model, tokens[start:stop, : until - 1].to(self._device), self.prompt - 1)
            chosen = logits.gather(-1, wanted[start:stop].to(logits.device)).squeeze(-1)
            largest = logits.amax(-1)
            check_finite(largest, self.model, f"windows of {tokens.shape[1]} tokens")
            return (chosen >= largest - self._slack).all(dim=1).cpu()

        parts = list(self._in_parts(check, len(tokens), self.batch or self._room(count)))
        return torch.cat([torch.zeros(0, dtype=torch.bool), *parts])

    def _in_parts(self, check: Callable[[int, int], Tensor], rows: int, size: int) -> Iterator[Tensor]:
        """Yield `check` of `size` rows at a time; of fewer from then on where memory does not suffice."""
        import torch

        start = 0
        while start < rows:
            size = min(size, self._largest or size)
            try:
                yield check(start, min(rows, start + size))
                start += size
            except torch.cuda.OutOfMemoryError as error:
                if size == 1:
                    raise _too_large() from error
                self._largest = size // 2
                torch.cuda.empty_cache()

    def _room(self, positions: int) -> int:
        return max(1, min(_MOST, LOGITS_AT_ONCE // (positions * vocabulary_of(self.model))))


def rounding_slack(model: PreTrainedModel) -> float:
    """Return how far apart a logit in a batch and the same one alone may be: more than rounding, in 32 and 16 bits."""
    exact = all(parameter.element_size() >= 4 for parameter in model.parameters() if parameter.is_floating_point())
    return _SLACK if exact else _SLACK_HALF


def regurgitated(model: PreTrainedModel, rows: Sequences, leads: Tensor) -> Tensor:
    """Return (N,) bool: whether every suffix token of a row is the arg-max, from a pass over batches of rows.

    Args:
        model: the model that was read.
        rows: what was read; `suffix_starts` says where the suffixes begin.
        leads: (N, T-1), how far the logit of each next token was above every other one. Rows that have a token near
            a tie, and none that is clearly wrong, are read again, each alone.
    """
    slack, others = rounding_slack(model), ~rows.suffix()[:, 1:]
    answer = ((leads > slack) | others).all(dim=1)
    near = ((leads >= -slack) | others).all(dim=1) & ~answer
    with evaluation_mode(model):
        for row in near.nonzero().flatten().tolist():
            tokens = rows.tokens[row, : int(rows.lengths[row])].tolist()
            answer[row] = read_alone(model, tokens, int(rows.suffix_starts[row])).extractable
    return answer


def read_alone(model: PreTrainedModel, row: Sequence[int], prompt: int) -> SuffixReading:
    """Return the predictions of a model (in evaluation mode) for the tokens of `row` from `prompt` on, in one pass."""
    import torch

    embedding: Any = model.get_input_embeddings()
    tokens = torch.tensor(row, dtype=torch.int64, device=embedding.weight.device)
    logits = suffix_logits(model, tokens[None, :-1], prompt - 1)[0]  # (S, V)
    true = tokens[prompt:, None].to(logits.device)
    largest = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    check_finite(largest[:, 0], model, f"a window of {len(row)} tokens")
    return SuffixReading(
        hits=int((logits.argmax(-1) == true[:, 0]).sum()),
        tokens=len(true),
        logprob=float(logits.log_softmax(-1).gather(-1, true).sum()),
        margin=float((largest[:, 0] - largest[:, -1]).min()),
    )


def suffix_logits(model: PreTrainedModel, ids: Tensor, start: int) -> Tensor:
    """Return the (B, T - start, V) float32 logits of the positions from `start` on of (B, T) ids."""
    import torch

    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    counted = pad is not None and bool((ids == pad).any())  # read like any token: say that it is meant
    with torch.no_grad(), _reading_from(model, start):
        result = model(input_ids=ids, attention_mask=torch.ones_like(ids) if counted else None, use_cache=False)
    logits: Tensor = result.logits
    return logits[:, logits.shape[1] - (ids.shape[1] - start) :].float()


@contextmanager
def _reading_from(model: PreTrainedModel, start: int) -> Iterator[None]:
    """Let the output layer see only the positions from `start` on; the others are never turned into logits."""
    head: Any = model.get_output_embeddings()
    if head is None:
        yield
        return

    def only(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][:, start:], *inputs[1:])

    handle = head.register_forward_pre_hook(only)
    try:
        yield
    finally:
        handle.remove()


def _too_large() -> DataError:
    return DataError(
        "not even one window fits into the memory of the device beside the model",
        expected="memory for the model and for the logits of one window",
        fix="use a smaller dtype, shorter windows (prompt=..., suffix=...) or device='cpu' (`unmemorize mitigate` and "
        "`unmemorize find`: --dtype bfloat16, --prompt, --suffix, --device cpu)",
    )
