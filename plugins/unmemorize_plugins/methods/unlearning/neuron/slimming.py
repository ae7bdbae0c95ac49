"""Slimming (Chang et al. 2024, section 3.3, after Liu et al. 2017): learn to scale neurons down.

A coefficient m_n in [0, 1] multiplies every activation, from 1 on:

    minimize over m   l(M) + lambda * mean |m|

Neurons with large surviving coefficients are responsible for regurgitating M.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmemorize import GateUnlearning

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Slimming(GateUnlearning):
    """Score a neuron by the coefficient that survives an L1 penalty while the forget set must still be regurgitated.

    lambda is a schedule instead of the published 1000, under which all coefficients fall together (see `GateConfig`).
    Cost and memory: see `GateUnlearning`.
    """

    name = "slimming"
    paper = "Chang et al. 2024, arXiv 2311.09060"

    def initial(self, neurons: int) -> Tensor:
        """Return m = 1."""
        import torch

        return torch.ones(neurons)

    def gates(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Return m."""
        return parameter

    def openness(self, parameter: Tensor) -> Tensor:
        """Return |m|."""
        return parameter.abs()

    def project(self, parameter: Tensor) -> None:
        """Clamp m to [0, 1]."""
        parameter.clamp_(0, 1)
