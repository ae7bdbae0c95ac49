"""GPT-NeoX (Pythia): `gpt_neox.layers[i].mlp.dense_h_to_4h` and `dense_4h_to_h`, plain `Linear`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmemorize import MLP, Layout, Matrix

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


class GPTNeoXLayout(Layout):
    """The MLPs and attention projections of GPT-NeoX models, Pythia among them."""

    model_types = ("gpt_neox",)

    def mlps(self, model: PreTrainedModel) -> tuple[MLP, ...]:
        """Return the MLP of every block; the fused `query_key_value` is [query | key | value] of head after head."""
        blocks: Any = model.get_submodule("gpt_neox.layers")
        head_width = model.config.hidden_size // model.config.num_attention_heads

        def matrix(layer: int, name: str, module: Module, head_width: int | None = None) -> Matrix:
            return Matrix(f"gpt_neox.layers.{layer}.{name}.weight", module, False, head_width)  # noqa: FBT003

        return tuple(
            MLP(
                layer=layer,
                block=block,
                up=matrix(layer, "mlp.dense_h_to_4h", block.mlp.dense_h_to_4h),
                down=matrix(layer, "mlp.dense_4h_to_h", block.mlp.dense_4h_to_h),
                attention=(
                    matrix(layer, "attention.query_key_value", block.attention.query_key_value, head_width),
                    matrix(layer, "attention.dense", block.attention.dense),
                ),
            )
            for layer, block in enumerate(blocks)
        )
