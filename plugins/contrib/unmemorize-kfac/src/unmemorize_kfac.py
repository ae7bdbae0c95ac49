"""K-FAC curvature edit (Merullo et al. 2025, section 3): keep the directions of a matrix that general text uses.

    F = E[g g^T] (x) E[a a^T] = G (x) A,   a = what enters a matrix W, g = dl / d(W a), at every token of general text

is the Kronecker-factored Fisher matrix of W. In the eigenbases G = U diag(mu) U^T and A = V diag(lambda) V^T

    C = U^T W V,   curvature of C_ij = mu_i * lambda_j,   W' = U (C * kept) V^T

What a model shares between many texts is where the loss, averaged over many texts, is sharply curved. A memorized
sequence has directions of its own, and on average these are flat. The components with the largest curvature are kept
until they hold a given share of its sum, and the others go: without a look at what was memorized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unmemorize import MLP, Context, Cost, DivergedError, Matrix, Method, StrictConfig, Testbed, hookimpl
from unmemorize.toolkit import (
    Sizes,
    count_tokens,
    gradients_of,
    groups_within,
    missing_layout,
    sampled_rows,
    select_largest,
)


class KFACConfig(StrictConfig):
    """Merullo et al. 2025 keep 60 % of the curvature of the gate and up matrices in layers 23 to 25 of 32.

    That is with millions of tokens; where the retain set is small, more has to be kept.
    """

    energy: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Share of the curvature that is kept. The share of the components that this takes is far smaller."""
    layers: tuple[int, ...] | None = None
    """Layers to edit; -1 is the last. By default, as above, a tenth of them, around three quarters of the depth."""
    matrices: tuple[Literal["gate", "up", "down"], ...] = ("gate", "up")
    """Which matrices of an MLP to edit. One without a gate has none to edit."""
    labels: Literal["sampled", "true"] = "sampled"
    """Whose gradients: of tokens drawn from the model's own predictions (the Fisher matrix), or of the text's own."""
    sequences: Annotated[int, Field(ge=1)] = 4096
    """Largest number of retain sequences; of more, a random part of this size is used."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Sequences per pass. It changes memory and speed, not the result."""
    memory: Annotated[float, Field(gt=0)] = 4.0
    """GiB for the factors: as many matrices as fit share a pass over the sequences, and at least one."""


class Factors(NamedTuple):
    """Sums over tokens for one matrix, float32 on its device: of a a^T (in, in) and of g g^T (out, out)."""

    inputs: Tensor
    outputs: Tensor


class Eigen(NamedTuple):
    """Eigenvalues (n,) and eigenvectors (n, n) in columns."""

    values: Tensor
    vectors: Tensor


class Basis(NamedTuple):
    """The eigenbases of one matrix's factors."""

    inputs: Eigen
    outputs: Eigen


class Edit(NamedTuple):
    """What a matrix is to become."""

    weights: Tensor
    """(inputs, outputs), in the dtype of the matrix."""
    kept: int
    """Number of components that it still has."""


class KFAC(Method):
    """Remove from MLP matrices what lies in directions that the retain set hardly uses; no forget set is needed.

    Cost: a forward and a backward pass (down to the lowest edited layer, no weight gradients) over the sequences for
    each group of matrices whose factors fit into `memory`; in^2 + out^2 multiplications per token and matrix; per
    matrix, two eigendecompositions and a sort of in * out numbers. Cells that differ in `energy` alone share all but
    the sort. Memory: max(`memory`, 4 (in^2 + out^2) of the largest matrix) bytes for factors, and as much again while
    their eigenvectors are found; one copy of the edited matrices; 36 bytes per weight of the one in work; 16 bytes per
    logit of a batch.
    """

    name = "kfac"
    stage = "unlearn"
    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    Config = KFACConfig
    paper = "Merullo et al. 2025, arXiv 2510.24256"

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for models without a layout, or without the layers or matrices."""
        reason = super().supports(testbed) or missing_layout(testbed)
        if reason is not None:
            return reason
        depth = testbed.mlps[-1].layer + 1
        unknown = [layer for layer in self.config.layers or () if not -depth <= layer < depth]
        if unknown:
            return f"layers {unknown} are not among the {depth} of this model; give {-depth} to {depth - 1}"
        if any(mlp.routed for mlp in self.mlps(testbed)):
            dense = sorted({mlp.layer for mlp in testbed.mlps} - {mlp.layer for mlp in testbed.mlps if mlp.routed})
            fix = f"set layers out of {dense}" if dense else "every layer of this model has experts"
            return f"experts see some of the tokens only, and curvature is taken over all of them; {fix}"
        if not self.matrices(testbed):
            return f"none of the matrices {list(self.config.matrices)} is in its MLPs; set matrices=['up', 'down']"
        return None

    def mlps(self, testbed: Testbed) -> list[MLP]:
        """Return the MLPs of the layers to edit, from the first to the last."""
        depth = testbed.mlps[-1].layer + 1
        several = max(1, round(depth / 10))
        first = 3 * depth // 4 - several // 2
        usual = range(first, first + several)
        chosen = usual if self.config.layers is None else {layer % depth for layer in self.config.layers}
        return [mlp for mlp in testbed.mlps if mlp.layer in chosen]

    def matrices(self, testbed: Testbed) -> list[Matrix]:
        """Return the matrices to edit, from the first layer to the last."""
        named = [getattr(mlp, name) for mlp in self.mlps(testbed) for name in self.config.matrices]
        return [matrix for matrix in named if matrix is not None]

    def cost(self, testbed: Testbed) -> Cost:
        """Return the passes, the products and eigenbases of the factors, and their memory."""
        assert testbed.retain is not None
        size, matrices = Sizes.of(testbed), self.matrices(testbed)
        given = count_tokens(testbed.retain.select(slice(0, self.config.sequences)), self.config.batch_size)
        groups = self.groups(matrices)
        sides = [side for matrix in matrices for side in matrix.weight.shape]
        largest = max(factor_bytes(group) for group in groups)
        return Cost(
            backward_tokens=len(groups) * given.tokens,
            sweeps=sum(40 * matrix.weight.numel() for matrix in matrices),
            multiplications=sum(given.tokens * side**2 + 5 * side**3 for side in sides),
            held_tokens=given.largest,
            device_bytes=2 * largest + size.weight_bytes * size.weights + 36 * size.largest,
            advice="set a smaller memory (GiB for the factors), fewer layers or fewer matrices",
        )

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Find the curvature group by group and leave out what is flat; the model changes when all are done."""
        edits: dict[str, Edit] = {}
        matrices = self.matrices(testbed)
        for group in self.groups(matrices):
            names = tuple(matrix.name for matrix in group)
            key = (type(self), self.config.model_copy(update={"energy": 0.5}), names)
            bases = context.shared(key, partial(self.bases, testbed, group, context))
            with context.timed("edit"):
                edits |= {matrix.name: without_flat(matrix, bases[matrix.name], self.config.energy) for matrix in group}
        with context.timed("edit"), torch.no_grad():
            for matrix in matrices:
                matrix.by_input().copy_(edits[matrix.name].weights)
        context.report.notes["components_kept"] = sum(edit.kept for edit in edits.values())
        context.report.notes["components"] = sum(matrix.weight.numel() for matrix in matrices)

    def groups(self, matrices: Sequence[Matrix]) -> list[list[Matrix]]:
        """Return the matrices in groups whose factors fit into `memory`."""
        return groups_within(matrices, lambda matrix: factor_bytes([matrix]), self.config.memory)

    def bases(self, testbed: Testbed, group: Sequence[Matrix], context: Context) -> dict[str, Basis]:
        """Return the eigenbases of every matrix of a group, by name."""
        factors = self.factors(testbed, group, context)
        bases = {}
        for matrix in context.track(group, f"{self.name}: eigenbases"):
            inputs, outputs = factors.pop(matrix.name)
            if not (torch.isfinite(inputs).all() and torch.isfinite(outputs).all()):
                raise DivergedError(f"{self.name}'s pass over the retain set ({matrix.name})", 0)
            bases[matrix.name] = Basis(Eigen(*torch.linalg.eigh(inputs)), Eigen(*torch.linalg.eigh(outputs)))
        return bases

    def factors(self, testbed: Testbed, group: Sequence[Matrix], context: Context) -> dict[str, Factors]:
        """Return both covariances of every matrix of a group, up to a common factor, by name."""
        assert testbed.retain is not None
        rows = sampled_rows(testbed.retain, self.config.sequences, context.generator(self.name))
        draws = context.generator(self.name, "labels")  # the same for every group
        sums = {matrix.name: empty_factors(matrix) for matrix in group}
        batches = list(rows.batches(self.config.batch_size))
        for batch in context.track(batches, f"{self.name}: curvature of {len(group)} matrices"):
            real = batch.real()[:, 1:].to(testbed.device)  # the positions that predict a real token
            with gradients_of(testbed.model, []), collected(group, sums, real), torch.enable_grad():
                inputs = batch.inputs().to(testbed.device)
                logits = testbed.model(input_ids=inputs[:, :-1], use_cache=False).logits
                logits = logits[real.to(logits.device)].float()  # (tokens, vocabulary)
                labels = inputs[:, 1:][real].to(logits.device) if self.config.labels == "true" else drawn(logits, draws)
                cross_entropy(logits, labels, reduction="sum").backward()
        return sums


def factor_bytes(matrices: Sequence[Matrix]) -> int:
    """Return the bytes of both factors of some matrices."""
    return sum(4 * side**2 for matrix in matrices for side in matrix.weight.shape)


def empty_factors(matrix: Matrix) -> Factors:
    """Return factors of zeros."""
    device = matrix.weight.device
    size_in, size_out = matrix.by_input().shape
    return Factors(torch.zeros(size_in, size_in, device=device), torch.zeros(size_out, size_out, device=device))


@torch.no_grad()
def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one token from each row of (N, V) logits, by inverting its distribution: N random numbers, from the CPU."""
    sums = logits.softmax(-1).cumsum(-1)
    at = torch.rand(len(logits), 1, generator=generator).to(logits.device) * sums[:, -1:]
    return torch.searchsorted(sums, at, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


@contextmanager
def collected(matrices: Sequence[Matrix], sums: dict[str, Factors], real: Tensor) -> Iterator[None]:
    """Add a a^T and g g^T of the real positions of one forward and backward pass to the sums of every matrix.

    Args:
        matrices: the matrices to watch.
        sums: the factors, by name.
        real: (B, T) bool, the positions that count.
    """
    handles: list[Any] = []

    def add(total: Tensor, values: Tensor) -> None:
        each = values.detach().reshape(*real.shape, -1)  # some MLPs run on all positions of all rows in one dimension
        counted = each[real.to(values.device)].float()
        total.addmm_(counted.T, counted)

    def watch(factors: Factors) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            add(factors.inputs, inputs[0])
            if not output.requires_grad:  # no parameter takes gradients: the graph begins here
                output.requires_grad_()
            output.register_hook(partial(add, factors.outputs))

        return forward

    try:
        for matrix in matrices:
            handles.append(matrix.module.register_forward_hook(watch(sums[matrix.name])))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def without_flat(matrix: Matrix, basis: Basis, energy: float) -> Edit:
    """Return a matrix of only those components with the largest curvature that hold the share `energy` of its sum."""
    weights = matrix.by_input().float()  # (inputs, outputs)
    V, U = basis.inputs.vectors, basis.outputs.vectors
    curvature = torch.outer(basis.inputs.values.clamp_min(0), basis.outputs.values.clamp_min(0))
    held = curvature.flatten().sort(descending=True).values.cumsum(0, dtype=torch.float64)
    count = int((held < energy * held[-1]).sum()) + 1
    kept = select_largest({matrix.name: curvature}, count).masks[matrix.name]
    components = (V.T @ weights @ U) * kept
    return Edit((V @ components @ U.T).to(matrix.weight.dtype), count)


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the method of this package."""
    return [KFAC]
