"""Cross-entropy of sequences: per token and per row, over real tokens only, in float32 and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Sequences

Tokens = Literal["all", "suffix"]

LOGITS_AT_ONCE = 2**24
"""Logits that exist at any time, at most: 64 MiB in float32, and about four times that with what is computed of them.

One position always fits, whatever the vocabulary.
"""


class TokenLosses(NamedTuple):
    """The cross-entropy of every target token. B rows, T positions; column j is about token j + 1."""

    values: Tensor
    """(B, T - 1) float32, 0 where the target is padding."""
    mask: Tensor
    """(B, T - 1) bool, True where the target is a real token."""

    def mean(self) -> Tensor:
        """Return the mean over all real target tokens of the batch, a scalar."""
        return self.values.sum() / self.mask.sum().clamp(min=1)

    def row_means(self, counted: Tensor | None = None) -> Tensor:
        """Return the mean over each row's real target tokens, (B,); 0 for a row that has none.

        Args:
            counted: (B, T - 1) bool, the targets that count; the real ones where it is not given.
        """
        counted = self.mask if counted is None else counted & self.mask
        return (self.values * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def token_losses(model: PreTrainedModel, batch: Sequences, tokens: Tokens = "all") -> TokenLosses:
    """Return the cross-entropy of each token of `batch` given the tokens before it, in one forward pass.

    The last position is no input: it predicts nothing that is known. Rows are padded on the right
    and the model is causal, so no real position ever sees padding; an attention mask would change nothing and
    cost the fast causal kernel.

    Args:
        model: a causal language model.
        batch: B right-padded rows.
        tokens: all real target tokens, or only those of the suffix; values of the others are then 0 where that saves
            work.

    Memory: the activations of the batch, and its logits as long as there are at most `LOGITS_AT_ONCE`. Of more, only
    those of the counted tokens are computed, a part at a time, and again in the backward pass.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device: torch.device = model.get_input_embeddings().weight.device  # type: ignore[assignment]
    real = batch.real()
    ids = batch.inputs().to(device)
    mask = real[:, 1:].to(device)
    if ids.shape[1] < 2:
        return TokenLosses(torch.zeros(mask.shape, device=device), mask)
    if mask.numel() * vocabulary_of(model) > LOGITS_AT_ONCE and model.base_model is not model:
        counted = mask if tokens == "all" else batch.suffix()[:, 1:].to(device)
        return TokenLosses(_streamed(model, ids, counted), mask)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    targets = ids[:, 1:].masked_fill(~mask, _IGNORED).to(logits.device)
    values = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="none")
    return TokenLosses(values.view(targets.shape).to(device), mask)


_IGNORED = -100


def sequence_losses(model: PreTrainedModel, batch: Sequences, tokens: Tokens = "all") -> Tensor:
    """Return the mean token cross-entropy of each row, (B,) float32.

    Args:
        model: a causal language model.
        batch: right-padded rows.
        tokens: count all real target tokens, or only those of the suffix.
    """
    losses = token_losses(model, batch, tokens)
    if tokens == "all":
        return losses.row_means()
    return losses.row_means(batch.suffix()[:, 1:].to(losses.mask.device))


def vocabulary_of(model: PreTrainedModel) -> int:
    """Return how many logits the model gives at each position."""
    return int(model.config.get_text_config().vocab_size)


def hidden_states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return the output of the last block (and the norm after it) for (B, T) ids, (B, T, width), without any logits."""
    result = model.base_model(input_ids=ids, use_cache=False)
    hidden: Tensor = result[0]
    return hidden


def _streamed(model: PreTrainedModel, ids: Tensor, counted: Tensor) -> Tensor:
    """Return the (B, T - 1) cross-entropies of the `counted` targets, 0 elsewhere, some positions at a time."""
    import torch
    from torch.utils.checkpoint import checkpoint

    result = model.base_model(input_ids=ids[:, :-1], use_cache=False)
    hidden = result[0]  # (B, T - 1, width)
    places = counted.nonzero(as_tuple=True)
    if not len(places[0]):
        return hidden[..., 0].float().to(counted.device) * 0
    targets = ids[:, 1:][places].to(hidden.device)
    chosen = hidden[tuple(index.to(hidden.device) for index in places)]  # (n, width)
    size = max(1, LOGITS_AT_ONCE // vocabulary_of(model))
    parts = [
        checkpoint(_head_losses, model, type(result), part, part_targets, use_reentrant=False, preserve_rng_state=False)
        for part, part_targets in zip(chosen.split(size), targets.split(size), strict=True)
    ]
    found = torch.cat(parts).to(counted.device)
    return torch.zeros(counted.shape, device=counted.device).index_put(places, found)


def _head_losses(model: PreTrainedModel, kind: type[Any], hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the (n,) cross-entropies of targets after (n, width) hidden states, by the model's own head.

    Args:
        model: a causal language model.
        kind: what its base model returns.
        hidden: what the head is given.
        targets: (n,) ids.
    """
    from torch.nn.functional import cross_entropy

    with _base_returning(model, kind(last_hidden_state=hidden[None])):
        logits = model(input_ids=targets[None], use_cache=False).logits[0]
    return cross_entropy(logits.float(), targets.to(logits.device), reduction="none").to(hidden.device)


@contextmanager
def _base_returning(model: PreTrainedModel, result: Any) -> Iterator[None]:
    """Let all that is below the head return `result`, so that whatever the model does to its logits is done too."""
    base: Any = model.base_model
    own = base.__dict__.get("forward")
    base.forward = lambda *_, **__: result
    try:
        yield
    finally:
        if own is None:
            del base.forward
        else:
            base.forward = own
