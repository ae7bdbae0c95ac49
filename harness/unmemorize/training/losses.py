"""Cross-entropy of sequences: per token and per row, over real tokens only, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.testbed import Sequences

Tokens = Literal["all", "suffix"]


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


def token_losses(model: PreTrainedModel, batch: Sequences) -> TokenLosses:
    """Return the cross-entropy of each token of `batch` given the tokens before it, in one forward pass.

    The last position is not fed to the model: it predicts nothing that is known. Rows are padded on the right
    and the model is causal, so no real position ever sees padding; an attention mask would change nothing and
    cost the fast causal kernel.
    """
    device: torch.device = model.get_input_embeddings().weight.device  # type: ignore[assignment]
    real = batch.real()
    tokens = batch.inputs().to(device)
    mask = real[:, 1:].to(device)
    if tokens.shape[1] < 2:
        return TokenLosses(torch.zeros(mask.shape, device=device), mask)
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    targets = tokens[:, 1:].masked_fill(~mask, _IGNORED)
    values = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=_IGNORED, reduction="none")
    return TokenLosses(values.view(targets.shape), mask)


_IGNORED = -100


def sequence_losses(model: PreTrainedModel, batch: Sequences, tokens: Tokens = "all") -> Tensor:
    """Return the mean token cross-entropy of each row, (B,) float32.

    Args:
        model: a causal language model.
        batch: right-padded rows.
        tokens: count all real target tokens, or only those of the suffix.
    """
    losses = token_losses(model, batch)
    if tokens == "all":
        return losses.row_means()
    return losses.row_means(batch.suffix()[:, 1:].to(losses.mask.device))
