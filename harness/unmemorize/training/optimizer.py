"""Which optimizer a recipe asks for, and how its learning rate moves."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from unmemorize.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.nn import Parameter
    from torch.optim import Optimizer

    from unmemorize.contracts.recipe import TrainingRecipe

_NEED_MORE_THAN_A_GRADIENT = frozenset({"LBFGS", "SparseAdam", "Muon"})
"""They ask for a closure, sparse gradients, or matrices only."""


def build_optimizer(recipe: TrainingRecipe, parameters: Iterable[Parameter]) -> Optimizer:
    """Return the recipe's optimizer over those `parameters` that take gradients.

    Raises:
        ConfigError: `torch.optim` has no such optimizer.
    """
    kind = _optimizers().get(recipe.optimizer)
    if kind is None:
        names = nearest(recipe.optimizer, _optimizers())
        raise ConfigError(
            f"the recipe names the optimizer {recipe.optimizer!r}, which torch.optim does not have",
            expected=f"one of {', '.join(names)}",
            fix=f"set optimizer = {names[0]!r}",
        )
    accepted = inspect.signature(kind).parameters
    wanted: dict[str, Any] = {"betas": recipe.betas, "weight_decay": recipe.weight_decay}
    settings = {name: value for name, value in wanted.items() if name in accepted}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if "fused" in accepted:
        return _fastest(kind, trained, recipe.learning_rate, settings)
    optimizer: Optimizer = kind(trained, lr=recipe.learning_rate, **settings)
    return optimizer


def _optimizers() -> dict[str, Any]:
    import torch
    from torch.optim import Optimizer

    named = {name: getattr(torch.optim, name) for name in dir(torch.optim)}
    return {
        name: kind
        for name, kind in named.items()
        if inspect.isclass(kind)
        and issubclass(kind, Optimizer)
        and kind is not Optimizer
        and name not in _NEED_MORE_THAN_A_GRADIENT
    }


def _fastest(kind: Any, trained: list[Parameter], learning_rate: float, settings: dict[str, Any]) -> Optimizer:
    try:
        optimizer: Optimizer = kind(trained, lr=learning_rate, fused=True, **settings)
    except RuntimeError:  # no fused kernel for this device or dtype in this version of torch
        optimizer = kind(trained, lr=learning_rate, **settings)
    return optimizer


def learning_rate_at(recipe: TrainingRecipe, step: int, total: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0) out of `total`."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / (recipe.warmup_steps + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - recipe.warmup_steps) / max(total - recipe.warmup_steps, 1)
    left = 1 - done if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * left
