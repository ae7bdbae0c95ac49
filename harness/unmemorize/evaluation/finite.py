"""Logits that are not finite are an error: read like numbers, they would say that nothing is memorized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmemorize.errors import NotFiniteError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(largest: Tensor, model: Any, where: str) -> None:
    """Refuse logits that are NaN or infinite; single ones may be minus infinity, as models do with unused tokens.

    Args:
        largest: for each position the largest logit, or the logarithm of the sum of their exponentials: of any shape.
        model: where they are from.
        where: what was read.

    Raises:
        NotFiniteError: some are not finite; it says why, as far as the weights show it.
    """
    if not bool(largest.isfinite().all()):
        broken = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
        raise NotFiniteError(where, str(model.dtype).removeprefix("torch."), broken)
