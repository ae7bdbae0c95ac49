"""Spectral norm regularization (Yoshida & Miyato 2017, section 3): keep what each matrix can amplify small.

minimize  mean loss + (strength / 2) * sum over weight matrices W of sigma(W)^2, sigma = the largest singular value
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from unmemorize import MLP, Cost, Matrix, Regularizer, StrictConfig, Testbed, TrainingStep
from unmemorize.toolkit import missing_layout

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

_FIRST_ITERATIONS = 10
"""Power iterations before the first step: from a random vector, one alone is far from the top."""


class SpectralNormConfig(StrictConfig):
    """Default of Yoshida & Miyato 2017; grid of Sakarvadia et al. 2025: strength in {1e-3, 1e-2, 1e-1}."""

    strength: Annotated[float, Field(gt=0)] = 0.01
    """lambda, the weight of the penalty."""
    power: Literal[1, 2] = 2
    """2: the squares of the norms are added up, as defined; 1: the norms themselves."""
    iterations: Annotated[int, Field(ge=1)] = 1
    """Power iterations per step, going on from the vectors of the step before."""


class SpectralNorm(Regularizer):
    """Train with a penalty on the squared spectral norm of every weight matrix of the transformer blocks.

    These are the attention projections and the MLP matrices; query, key and value are taken head by head, and gate, up
    and experts one by one, also where one parameter fuses them. Embeddings and norms do not count.

    Cost: per step and iteration two multiplications of each matrix with a vector, far below one forward pass.
    Memory: float32 singular vectors, 4 * sum of (rows + columns) bytes, and one float32 gradient of every matrix.
    """

    name = "spectral_norm"
    Config = SpectralNormConfig
    paper = "Yoshida & Miyato 2017, arXiv 1705.10941"

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for models without a layout."""
        return super().supports(testbed) or missing_layout(testbed)

    def extra_cost(self, testbed: Testbed, plain: Cost) -> Cost:
        """Return two products of every matrix with a vector per step and iteration."""
        matrices = [matrix.by_part() for mlp in testbed.mlps for matrix in mlp.block_matrices()]
        size = sum(parts.numel() for parts in matrices)
        sweeps = testbed.facts["steps"] * (2 * self.config.iterations + 4) * size
        vectors = sum(len(parts) * (parts.shape[1] + parts.shape[2]) for parts in matrices)
        return Cost(sweeps=sweeps, device_bytes=4 * (size + vectors))

    @contextmanager
    def attach(self, model: PreTrainedModel, mlps: tuple[MLP, ...], generator: torch.Generator) -> Iterator[None]:
        """Draw singular vectors for every matrix, and bring them near the top ones."""
        matrices = [matrix for mlp in mlps for matrix in mlp.block_matrices()]
        self._norms = [_SpectralNorms(matrix, generator) for matrix in matrices]
        for norms in self._norms:
            norms.iterate(_FIRST_ITERATIONS)
        try:
            yield
        finally:
            self._norms = []

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the mean token loss plus the penalty."""
        import torch

        penalty = torch.zeros((), device=step.token_losses.device)
        for norms in self._norms:
            norms.iterate(self.config.iterations)
            penalty = penalty + norms.sigma().pow(self.config.power).sum().to(penalty.device)
        return step.mean_loss + self.config.strength / 2 * penalty


class _SpectralNorms:
    """The largest singular value of each part of one matrix: P parts of I inputs and O outputs (P = 1: it is whole)."""

    def __init__(self, matrix: Matrix, generator: torch.Generator) -> None:
        import torch
        from torch.nn.functional import normalize

        self.matrix = matrix
        weight = matrix.by_part()  # (P, I, O)
        drawn = torch.randn(weight.shape[0], weight.shape[2], 1, generator=generator)
        self.right = normalize(drawn, dim=1).to(weight.device)  # (P, O, 1)
        self.left = torch.empty(0)  # (P, I, 1)

    def iterate(self, times: int) -> None:
        """Bring both vectors nearer to the top singular vectors of the matrix as it is now."""
        import torch
        from torch.nn.functional import normalize

        with torch.no_grad():
            weight = self.matrix.by_part().float()
            for _ in range(times):
                self.left = normalize(weight @ self.right, dim=1)
                self.right = normalize(weight.mT @ self.left, dim=1)

    def sigma(self) -> Tensor:
        """Return u^T W v of each part, (P,) float32; its gradient u v^T flows into the weights."""
        return (self.left.mT @ self.matrix.by_part().float() @ self.right).flatten()
