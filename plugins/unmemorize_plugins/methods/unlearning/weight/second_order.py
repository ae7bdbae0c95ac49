"""Second order (Kurtic et al. 2022; Hassibi & Stork 1992): remove the weights of highest saliency for the forget set.

The optimal brain surgeon's saliency of a weight is the rise of l(M) when it is removed and all others compensate:

    saliency(w) = w^2 / (2 [F^-1]_ww),   F = damp * I + 1/N * sum over x in M of g_x g_x^T,   g_x = d l(x) / d w

F is taken block by block: B consecutive weights of a matrix, read neuron by neuron (row-major, outputs x inputs). A
pruner removes the lowest saliencies; here, per matrix, the top share is set to zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Context, Cost, DivergedError, Matrix, Sequences, Testbed, WeightConfig, WeightUnlearning
from unmemorize.toolkit import (
    Sizes,
    count_tokens,
    groups_within,
    matrices_of,
    sampled_rows,
    visit_sequence_gradients,
)

if TYPE_CHECKING:
    from torch import Tensor


class SecondOrderConfig(WeightConfig):
    """Block size, damping and samples: Kurtic et al. 2022, section 4; grid of ratios: Sakarvadia et al. 2025."""

    block: Annotated[int, Field(ge=1, le=512)] = 50
    """B: consecutive weights of a matrix whose interplay is counted."""
    damp: Annotated[float, Field(ge=1e-10)] = 1e-7
    """Added to a block's diagonal, relative to its mean; at least 1e-10, so that float64 can factorize every block."""
    samples: Annotated[int, Field(ge=1)] = 512
    """Largest N: of a larger forget set, a random part of this size is used."""
    memory: Annotated[float, Field(gt=0)] = 4.0
    """GiB for the Fisher blocks: as many matrices as fit share a pass over the samples, and at least one."""


class SecondOrder(WeightUnlearning):
    """Set to zero, in every MLP matrix, the weights with the highest optimal-brain-surgeon saliency for the forget set.

    The damping is relative to the mean diagonal of each block: then a rank-deficient block (N < B) still ranks by its
    gradients, and a block whose gradients are all zero has saliency 0. Blocks are summed and inverted in float64, since
    a condition number of about B / damp is beyond float32.

    Cost: as many forward and backward passes over N sequences as the blocks need, ceil(8 B |P| / memory): one if all
    fit; B |P| N multiplications for the blocks. Memory: max(`memory`, 8 B n) bytes for the blocks, n = weights of the
    largest matrix; 12 n bytes for each row of a batch, up to 768 MiB or one row's; 5 |P| bytes for scores and flags; a
    batch's activations.
    """

    name = "second_order"
    Config = SecondOrderConfig
    paper = "Kurtic et al. 2022, arXiv 2203.07259"
    scope = "layer"

    def score(self, testbed: Testbed, context: Context) -> dict[str, Tensor]:
        """Return w^2 / (2 [F^-1]_ww) for every MLP matrix."""
        rows = self.sample(testbed.forget, context)
        scores = {}
        for matrices in self.passes(list(matrices_of(testbed.mlps).values())):
            fishers = self.fishers(testbed, rows, matrices, context)
            for matrix in matrices:
                saliency = self.saliency(matrix, fishers.pop(matrix.name))
                scores[matrix.name] = saliency.to(context.place_of(matrix.weight))
        return scores

    def sample(self, forget: Sequences, context: Context) -> Sequences:
        """Return at most `samples` rows of the forget set."""
        return sampled_rows(forget, self.config.samples, context.generator(self.name))

    def passes(self, matrices: list[Matrix]) -> list[list[Matrix]]:
        """Return the matrices in groups whose blocks fit into `memory`, 8 B bytes a weight."""
        return groups_within(matrices, lambda matrix: 8 * self.config.block * matrix.weight.numel(), self.config.memory)

    def cost(self, testbed: Testbed) -> Cost:
        """Return the passes, the sums of blocks and their inverses, and the memory of blocks and row gradients."""
        size, B = Sizes.of(testbed), self.config.block
        rows = min(self.config.samples, len(testbed.forget))
        given = count_tokens(testbed.forget.select(slice(0, rows)), self.config.batch_size)
        groups = self.passes(list(matrices_of(testbed.mlps).values()))
        blocks = max(8 * B * sum(matrix.weight.numel() for matrix in group) for group in groups)
        gradients = min(min(rows, self.config.batch_size) * size.largest, max(2**26, size.largest))
        waiting = 5 * size.weights
        return Cost(
            backward_tokens=len(groups) * given.tokens,
            sweeps=4 * rows * size.weights,
            multiplications=size.weights * (B * rows + _INVERSE * B * B + _BLOCK_CALL / B),
            held_tokens=given.largest,
            device_bytes=blocks + 12 * gradients + 24 * _AT_ONCE * B * B,
            offloadable_bytes=waiting,
            advice="set memory (GiB for the blocks), fewer samples or a smaller block",
        )

    def fishers(self, testbed: Testbed, rows: Sequences, matrices: list[Matrix], context: Context) -> dict[str, Tensor]:
        """Return 1/N * sum of g_x g_x^T for each matrix: (blocks, B, B) float64, zero beyond the last weight."""
        import torch

        B = self.config.block
        sums = {
            matrix.name: matrix.weight.new_zeros((-(-matrix.weight.numel() // B), B, B), dtype=torch.float64)
            for matrix in matrices
        }

        def add(matrix: Matrix, gradients: Tensor) -> None:  # (rows, ..., outputs, inputs)
            g = self.in_blocks(gradients.flatten(1)).transpose(0, 1).double()  # (blocks, rows, B)
            sums[matrix.name].baddbmm_(g.mT, g, alpha=1 / len(rows))

        batches = list(rows.batches(self.config.batch_size))
        for number, batch in enumerate(context.track(batches, "gradients of every sequence")):
            losses = visit_sequence_gradients(testbed.model, batch, matrices, add, self.config.tokens)
            if not torch.isfinite(losses).all():
                raise DivergedError("second_order's pass over the forget set", number)
        return sums

    def in_blocks(self, flat: Tensor) -> Tensor:
        """Cut the last dimension into blocks: (..., n) -> (..., ceil(n / B), B), zero beyond the last weight."""
        from torch.nn.functional import pad

        B = self.config.block
        return pad(flat, (0, -flat.shape[-1] % B)).unflatten(-1, (-1, B))

    def saliency(self, matrix: Matrix, fisher: Tensor) -> Tensor:
        """Return w^2 / (2 [F^-1]_ww) in the shape of the matrix, some thousand blocks at a time."""
        import torch

        weights = matrix.by_input().detach().mT.float()  # (..., outputs, inputs)
        flat = weights.flatten()
        w = self.in_blocks(flat)  # (blocks, B)
        real = self.in_blocks(torch.ones_like(flat)).sum(-1)
        parts = zip(w.split(_AT_ONCE), fisher.split(_AT_ONCE), real.split(_AT_ONCE), strict=True)
        found = torch.cat([w.square() / 2 * curvatures(F, size, self.config.damp) for w, F, size in parts])
        scores = found.flatten()[: flat.numel()].view(weights.shape)
        return scores.mT.contiguous() if matrix.stores_input_first else scores


_AT_ONCE = 4096
"""Blocks that are factorized together: 4096 * 50 * 50 float64 are 80 MB."""
_INVERSE = 4
"""Inverting a block of B weights takes about as long as this many times B^3 multiply-adds in products..."""
_BLOCK_CALL = 50_000
"""...and this many, however small it is."""


def curvatures(fisher: Tensor, real: Tensor, damp: float) -> Tensor:
    """Return 1 / [(damp * mean * I + F)^-1]_ww of each block, (blocks, B) float32; 0 where F is 0.

    With the Cholesky factor F = L L^T, [F^-1]_ww is the squared length of column w of L^-1.

    Args:
        fisher: (blocks, B, B) float64, zero beyond the last weight.
        real: (blocks,) number of weights in each block.
        damp: relative to the mean diagonal of each block.
    """
    import torch

    mean = fisher.diagonal(dim1=1, dim2=2).sum(-1) / real
    scale = mean.clamp_min(torch.finfo(torch.float64).tiny)[:, None, None]
    identity = torch.eye(fisher.shape[-1], dtype=fisher.dtype, device=fisher.device)
    factor = torch.linalg.cholesky(fisher / scale + damp * identity)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return (mean[:, None] / inverse.square().sum(1)).float()
