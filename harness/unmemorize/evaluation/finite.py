"""Logits and weights that are not finite are an error: read like numbers, they would say that nothing is memorized."""

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
        raise NotFiniteError(where, _dtype(model), _broken(model))


def check_weights(model: Any) -> None:
    """Refuse a model that comes with weights that are not finite, also where no row that is measured meets them.

    Raises:
        NotFiniteError: there are some.
    """
    if broken := _broken(model):
        raise NotFiniteError.of_weights(_dtype(model), broken)


def _broken(model: Any) -> list[str]:
    return [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")
