"""Hard concrete (Chang et al. 2024, section 3.3, after Louizos et al. 2018): gates that can be exactly zero.

A random gate, often exactly 0 or 1, multiplies every activation. With u uniform in (0, 1), temperature b, and the
stretch (c, d) around [0, 1] (Louizos et al., equations 10 to 12):

    s = sigmoid((log u - log(1 - u) + log alpha) / b),   gate = min(1, max(0, s * (d - c) + c))
    P(gate > 0) = sigmoid(log alpha - b * log(-c / d))
    minimize over log alpha   E l(M) + lambda * mean P(gate > 0)

Neurons whose gate stays open most probably are responsible for regurgitating M.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import GateConfig, GateUnlearning

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_STRETCH = (-0.1, 1.1)
_INITIAL = 1.0
"""log alpha at the start: near open, P(gate > 0) = 0.93."""


class HardConcreteConfig(GateConfig):
    """Defaults: Louizos et al. 2018, section 4; Adam's rate of Chang et al. 2024."""

    temperature: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    """b: the lower, the more often a gate is exactly 0 or 1."""


class HardConcrete(GateUnlearning):
    """Score a neuron by the probability that its gate is open, under an expected-L0 penalty.

    One draw of all gates per step. lambda is a schedule instead of the published 1000 (see `GateConfig`). Cost and
    memory: see `GateUnlearning`.
    """

    name = "hard_concrete"
    Config = HardConcreteConfig
    paper = "Chang et al. 2024, arXiv 2311.09060"

    def initial(self, neurons: int) -> Tensor:
        """Return the first log alpha."""
        import torch

        return torch.full((neurons,), _INITIAL)

    def gates(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw every gate once."""
        import torch

        low, high = _STRETCH
        uniform = torch.rand(parameter.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(parameter.device)
        concrete = torch.sigmoid((uniform.logit() + parameter) / self.config.temperature)
        return (concrete * (high - low) + low).clamp(0, 1)

    def openness(self, parameter: Tensor) -> Tensor:
        """Return P(gate > 0)."""
        import torch

        low, high = _STRETCH
        return torch.sigmoid(parameter - self.config.temperature * math.log(-low / high))
