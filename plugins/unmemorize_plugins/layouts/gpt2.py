"""GPT-2: `transformer.h[i].mlp.c_fc` and `c_proj`, stored as `Conv1D` (input first)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmemorize import MLP, Layout, Matrix

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


class GPT2Layout(Layout):
    """The MLPs and attention projections of GPT-2 models."""

    model_types = ("gpt2",)

    def mlps(self, model: PreTrainedModel) -> tuple[MLP, ...]:
        """Return the MLP of every block; the fused `c_attn` is [query | key | value], each head after head."""
        blocks: Any = model.get_submodule("transformer.h")
        head_width = model.config.n_embd // model.config.n_head

        def matrix(layer: int, name: str, module: Module, head_width: int | None = None) -> Matrix:
            return Matrix(f"transformer.h.{layer}.{name}.weight", module, True, head_width)  # noqa: FBT003

        return tuple(
            MLP(
                layer=layer,
                block=block,
                up=matrix(layer, "mlp.c_fc", block.mlp.c_fc),
                down=matrix(layer, "mlp.c_proj", block.mlp.c_proj),
                attention=(
                    matrix(layer, "attn.c_attn", block.attn.c_attn, head_width),
                    matrix(layer, "attn.c_proj", block.attn.c_proj),
                ),
            )
            for layer, block in enumerate(blocks)
        )
