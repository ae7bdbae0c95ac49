"""Where the matrices of an architecture are: rows of a table, and what a row and a model make together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Layout:
    """Where the MLPs and the attention projections of some architectures are: one row of the table of layouts.

    Return rows from the hook `register_layouts`. Look-up is by `config.model_type`, never by a substring of a model's
    name. Names are those of `model.named_modules()` and `model.named_parameters()`, without a final `.weight`. Fused
    projections (gate and up in one parameter) and experts (a parameter of three dimensions) are found by their shapes.
    """

    model_types: tuple[str, ...]
    """The values of `config.model_type` that this row describes."""
    blocks: str
    """The list of transformer blocks: `model.layers`."""
    mlps: tuple[tuple[str, ...], ...]
    """The MLPs that a block may have, each as the names of its matrices within the block: up and down, or gate, up and
    down. A block has those whose names exist in it: dense in some blocks, routed and shared experts in others."""
    heads: tuple[str, ...] = ()
    """Query, key and value projections within a block, or fusions of these: their outputs are head beside head."""
    attention: tuple[str, ...] = ()
    """The other projections of the attention."""
    input_first: bool = False
    """Whether parameters of experts are stored (experts, inputs, outputs)."""
    interleaved: bool = False
    """Whether a fused projection has gate and up in turn, instead of gate first and up behind it."""

    def __repr__(self) -> str:
        """Return the row as it is written in a plugin, without what is as by default."""
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        return f"Layout({', '.join(f'{field.name}={value!r}' for field, value in given if value != field.default)})"


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of a transformer block, or a stack of one per expert, whichever way round it is stored."""

    name: str
    """The parameter's name in the state dict."""
    module: Module
    """The module that holds it."""
    stores_input_first: bool
    """True for `Conv1D` (in, out), False for `Linear` (out, in)."""
    part_width: int | None = None
    """Outputs of a part, where the matrix is several side by side: a head of a query, key or value projection or of a
    fusion of these; gate or up of a fused projection."""
    interleaved: bool = False
    """True if the outputs of the parts come in turn instead of part after part."""
    parameter: str = "weight"
    """Its name in the module."""

    @property
    def weight(self) -> Parameter:
        """The stored parameter, in the module's own orientation; experts are its first dimension."""
        weight: Parameter = getattr(self.module, self.parameter)
        return weight

    def by_input(self) -> Tensor:
        """Return a (..., inputs, outputs) view of the weight: row n is what input n sends out; experts come first."""
        return self.weight if self.stores_input_first else self.weight.mT

    def by_part(self) -> Tensor:
        """Return (parts, inputs, outputs of a part): each head, gate, up, and each expert's, as a matrix of its own."""
        weight = self.by_input()
        if self.part_width is None:
            split = weight.unsqueeze(-3)
        elif self.interleaved:
            split = weight.unflatten(-1, (self.part_width, -1)).movedim(-1, -3)
        else:
            split = weight.unflatten(-1, (-1, self.part_width)).movedim(-2, -3)
        return split.reshape(-1, *split.shape[-2:])


@dataclass(frozen=True, slots=True)
class MLP:
    """An MLP of a transformer block, or all routed experts of a block together.

    Neuron n is coordinate n of the activation that enters `down`; of E experts of m neurons, coordinate n of expert e
    is neuron e * m + n. d = width of the model. A block may have several: routed and shared experts.
    """

    layer: int
    """Number of the transformer block, from 0."""
    block: Module
    """The transformer block that holds this MLP."""
    up: Matrix
    """d -> m, or d -> 2 m where gate and up are one parameter."""
    down: Matrix
    """m -> d. Row n of `down.by_input()` is what neuron n adds to the residual stream."""
    gate: Matrix | None = None
    """d -> m, in gated MLPs (Llama style)."""
    attention: tuple[Matrix, ...] = ()
    """The projections of the block's attention, with the first MLP of each block."""

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every weight matrix of this MLP, in a fixed order."""
        return (self.up, self.down) if self.gate is None else (self.gate, self.up, self.down)

    def block_matrices(self) -> tuple[Matrix, ...]:
        """Return the weight matrices of the attention and of this MLP: over all MLPs, every matrix of every block."""
        return self.attention + self.matrices

    @property
    def neurons(self) -> int:
        """The number of neurons: m, or E * m."""
        return int(self.down.by_input().shape[:-1].numel())

    @property
    def routed(self) -> bool:
        """Whether these are experts, of which each token passes some."""
        return self.down.weight.ndim == 3
