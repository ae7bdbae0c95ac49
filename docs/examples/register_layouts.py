"""A plugin with one layout: where the MLPs and the attention projections of CodeGen are."""

from __future__ import annotations

from unmemorize import Layout, hookimpl


@hookimpl
def register_layouts() -> list[Layout]:
    """Return the layouts of this plugin."""
    return [
        Layout(
            model_types=("codegen",),
            blocks="transformer.h",
            mlps=(("mlp.fc_in", "mlp.fc_out"),),
            heads=("attn.qkv_proj",),
            attention=("attn.out_proj",),
        )
    ]
