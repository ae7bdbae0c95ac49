"""Llama-style gated MLPs: `model.layers[i].mlp.gate_proj`, `up_proj`, `down_proj`, plain `Linear`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unmemorize import MLP, Layout, Matrix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LlamaLayout(Layout):
    """The MLPs and attention projections of Llama and of the families that name theirs as it does."""

    model_types = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "smollm3")

    def mlps(self, model: PreTrainedModel) -> tuple[MLP, ...]:
        """Return the MLP of every block."""
        blocks: Any = model.get_submodule("model.layers")
        return tuple(self._mlp(model, layer, block) for layer, block in enumerate(blocks))

    def _mlp(self, model: PreTrainedModel, layer: int, block: Any) -> MLP:
        def matrix(name: str, head_width: int | None = None) -> Matrix:
            module = block.get_submodule(name)
            return Matrix(f"model.layers.{layer}.{name}.weight", module, False, head_width)  # noqa: FBT003

        # Some families' heads are wider than width / heads, and key and value have fewer heads than query.
        head_width = block.self_attn.q_proj.weight.shape[0] // model.config.num_attention_heads
        split = tuple(matrix(f"self_attn.{name}_proj", head_width) for name in "qkv")
        return MLP(
            layer=layer,
            block=block,
            gate=matrix("mlp.gate_proj"),
            up=matrix("mlp.up_proj"),
            down=matrix("mlp.down_proj"),
            attention=(*split, matrix("self_attn.o_proj")),
        )
