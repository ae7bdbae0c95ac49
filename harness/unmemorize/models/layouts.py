"""From a row of the table of layouts and a model to the MLPs of that model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.layout import MLP, Layout, Matrix
from unmemorize.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PreTrainedModel


def mlps_of(model: PreTrainedModel, layout: Layout) -> tuple[MLP, ...]:
    """Return the MLPs of every transformer block, from the first block to the last.

    Args:
        model: a model of a type that the row describes.
        layout: the row.

    Raises:
        LayoutError: the row does not fit the model.
    """
    from torch import nn

    try:
        blocks = model.get_submodule(layout.blocks)
    except AttributeError:
        blocks = nn.ModuleList()
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise LayoutError.of_row(layout.model_types, f"{layout.blocks!r} is no list of blocks of this model")
    head = _head_width(model.config.get_text_config()) if layout.heads else 1
    return tuple(mlp for number, block in enumerate(blocks) for mlp in _BlockByRow(layout, number, block, head).mlps())


def is_input_first(module: nn.Module) -> bool:
    """Whether a module stores its `weight` as (inputs, outputs), as GPT-2's `Conv1D` does."""
    return type(module).__name__ == "Conv1D"


def _head_width(config: Any) -> int:
    """Return the outputs of one head; some families' heads are wider than the model's width over their number."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


class _BlockByRow:
    """One transformer block, in which a row's names are looked up."""

    def __init__(self, layout: Layout, number: int, module: nn.Module, head: int) -> None:
        self._layout, self._number, self._module, self._head = layout, number, module, head
        self._prefix = f"{layout.blocks}.{number}"
        self._names = {name.removesuffix(".weight"): name for name, _ in module.named_parameters()}

    def mlps(self) -> list[MLP]:
        """Return the MLPs that the block has, the first one with the projections of its attention."""
        found = [self._mlp(names) for names in self._layout.mlps if self._has(names)]
        if not found:
            raise LayoutError.of_row(self._layout.model_types, f"{self._prefix} has none of its MLPs")
        known = {matrix.name for mlp in found for matrix in mlp.matrices}
        return [replace(found[0], attention=self._attention(known)), *found[1:]]

    def _has(self, names: Sequence[str]) -> bool:
        missing = [name for name in names if name not in self._names]
        if 0 < len(missing) < len(names):
            raise LayoutError.of_row(self._layout.model_types, f"{self._prefix} lacks {', '.join(missing)}")
        return not missing

    def _mlp(self, names: Sequence[str]) -> MLP:
        *into, down = (self._matrix(name) for name in names)
        neurons = down.by_input().shape[-2]
        if into[-1].by_input().shape[-1] == 2 * neurons:
            into[-1] = replace(into[-1], part_width=neurons, interleaved=self._layout.interleaved)
        return MLP(self._number, self._module, into[-1], down, into[0] if len(into) > 1 else None)

    def _attention(self, known: set[str]) -> tuple[Matrix, ...]:
        """Return the projections that the row names or, where it names none, every other matrix of the block, whole."""
        split = [self._matrix(name) for name in self._layout.heads if name in self._names]
        heads = [replace(one, part_width=self._head) if self._is_split(one) else one for one in split]
        if not self._layout.heads + self._layout.attention:
            others = [self._matrix(name) for name in self._names]
            return tuple(one for one in others if one.weight.ndim == 2 and one.name not in known)
        return (*heads, *(self._matrix(name) for name in self._layout.attention if name in self._names))

    def _is_split(self, matrix: Matrix) -> bool:
        return matrix.by_input().shape[-1] % self._head == 0

    def _matrix(self, name: str) -> Matrix:
        owner, _, parameter = self._names[name].rpartition(".")
        module = self._module.get_submodule(owner)
        stacked = module.get_parameter(parameter).ndim == 3
        first = self._layout.input_first if stacked else is_input_first(module)
        return Matrix(f"{self._prefix}.{self._names[name]}", module, first, parameter=parameter)
