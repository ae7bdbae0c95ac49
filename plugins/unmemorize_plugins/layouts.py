"""Where the MLPs and the attention projections of known architectures are: the built-in table of layouts."""

from __future__ import annotations

from dataclasses import replace

from unmemorize import Layout


def _gated(name: str) -> tuple[str, ...]:
    return (f"{name}.gate_proj", f"{name}.up_proj", f"{name}.down_proj")


def _fused(name: str) -> tuple[str, ...]:
    return (f"{name}.gate_up_proj", f"{name}.down_proj")


_LLAMA = Layout(
    model_types=(
        "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "olmo3", "smollm3",
        "stablelm", "granite", "cohere", "cohere2", "ministral", "exaone4", "ernie4_5", "seed_oss", "helium",
        "hunyuan_v1_dense",
    ),
    blocks="model.layers",
    mlps=(_gated("mlp"),),
    heads=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    attention=("self_attn.o_proj",),
)  # fmt: skip
_MIXTURES = (
    "mixtral", "olmoe", "flex_olmo", "qwen2_moe", "qwen3_moe", "qwen3_next", "glm4_moe", "ernie4_5_moe", "dots1",
    "minimax_m2",
)  # fmt: skip
_GPT2 = Layout(
    model_types=("gpt2", "gpt_bigcode"),
    blocks="transformer.h",
    mlps=(("mlp.c_fc", "mlp.c_proj"),),
    heads=("attn.c_attn",),
    attention=("attn.c_proj",),
)
_BLOOM = Layout(
    model_types=("bloom", "falcon"),
    blocks="transformer.h",
    mlps=(("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),),
    heads=("self_attention.query_key_value",),
    attention=("self_attention.dense",),
)

LAYOUTS = (
    _LLAMA,
    replace(_LLAMA, model_types=("phi3",), mlps=(_fused("mlp"),), heads=("self_attn.qkv_proj",)),
    replace(_LLAMA, model_types=("glm", "glm4"), mlps=(_fused("mlp"),)),
    replace(_LLAMA, model_types=("nemotron", "arcee", "apertus"), mlps=(("mlp.up_proj", "mlp.down_proj"),)),
    replace(_LLAMA, model_types=("starcoder2",), mlps=(("mlp.c_fc", "mlp.c_proj"),)),
    replace(_LLAMA, model_types=("phi",), mlps=(("mlp.fc1", "mlp.fc2"),), attention=("self_attn.dense",)),
    replace(
        _LLAMA,
        model_types=("opt",),
        blocks="model.decoder.layers",
        mlps=(("fc1", "fc2"),),
        attention=("self_attn.out_proj",),
    ),
    replace(
        _LLAMA,
        model_types=_MIXTURES,
        mlps=(_gated("mlp"), _fused("mlp.experts"), _gated("mlp.shared_expert"), _gated("mlp.shared_experts")),
        attention=("self_attn.o_proj", *(f"linear_attn.{name}" for name in ("in_proj_qkvz", "in_proj_ba", "out_proj"))),
    ),
    replace(
        _LLAMA,
        model_types=("deepseek_v2", "deepseek_v3"),
        mlps=(_gated("mlp"), _fused("mlp.experts"), _gated("mlp.shared_experts")),
        heads=(),
        attention=(
            "self_attn.q_proj",
            "self_attn.q_a_proj",
            "self_attn.q_b_proj",
            "self_attn.kv_a_proj_with_mqa",
            "self_attn.kv_b_proj",
            "self_attn.o_proj",
        ),
    ),
    replace(_LLAMA, model_types=("gpt_oss",), mlps=(_fused("mlp.experts"),), input_first=True, interleaved=True),
    replace(
        _LLAMA,
        model_types=("llama4_text",),
        mlps=(_gated("feed_forward"), _fused("feed_forward.experts"), _gated("feed_forward.shared_expert")),
        input_first=True,
    ),
    _GPT2,
    replace(
        _GPT2,
        model_types=("gpt_neo",),
        heads=tuple(f"attn.attention.{name}_proj" for name in "qkv"),
        attention=("attn.attention.out_proj",),
    ),
    replace(
        _GPT2,
        model_types=("gptj",),
        mlps=(("mlp.fc_in", "mlp.fc_out"),),
        heads=tuple(f"attn.{name}_proj" for name in "qkv"),
        attention=("attn.out_proj",),
    ),
    _BLOOM,
    replace(
        _BLOOM,
        model_types=("gpt_neox",),
        blocks="gpt_neox.layers",
        heads=("attention.query_key_value",),
        attention=("attention.dense",),
    ),
)
