"""Loss truncation (Kang & Hashimoto 2020, section 4): do not learn from the sequences that are hardest to predict.

    minimize   mean l(x) over the x of a step with l(x) <= q,   q = the (1 - c) quantile of recent sequence losses

Noise cannot be predicted, only memorized, so it is what lies above the quantile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import MLP, Regularizer, StrictConfig, TrainingStep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


class LossTruncationConfig(StrictConfig):
    """Grid of Sakarvadia et al. 2025: c in {0.01, 0.05, 0.1}."""

    dropped: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """c, the share of the sequences that is dropped."""
    buffer: Annotated[int, Field(ge=16)] = 1024
    """How many recent sequence losses the quantile is taken over."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps during which nothing is dropped: an untrained model finds everything hard."""


class LossTruncation(Regularizer):
    """Drop the sequences whose loss lies above the (1 - c) quantile of recent losses; train on the mean of the rest.

    Cost: as plain training, and one quantile of `buffer` numbers per step. Memory: 4 * buffer bytes beside plain
    training.
    """

    name = "loss_truncation"
    Config = LossTruncationConfig
    paper = "Kang & Hashimoto 2020, arXiv 2004.14589"

    @contextmanager
    def attach(self, model: PreTrainedModel, mlps: tuple[MLP, ...], generator: torch.Generator) -> Iterator[None]:
        """Start with no recent losses."""
        import torch

        self._recent = torch.empty(0)
        yield

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the mean token loss over the sequences that are kept."""
        import torch

        losses = step.sequence_losses.detach()
        self._recent = torch.cat([self._recent.to(losses), losses])[-self.config.buffer :]
        if step.number < self.config.warmup_steps:
            return step.token_losses.sum() / step.mask.sum()
        kept = losses <= torch.quantile(self._recent, 1 - self.config.dropped)
        return (step.token_losses * kept[:, None]).sum() / (step.mask & kept[:, None]).sum().clamp(min=1)
