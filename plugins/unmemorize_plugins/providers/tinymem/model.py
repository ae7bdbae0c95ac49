"""TinyMem's model: a small GPT-2 with ReLU, fresh or from the cache."""

from __future__ import annotations

import math

import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from unmemorize import Context
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.math_data import BEGIN, END, PAD, VOCABULARY


def fresh_model(config: TinyMemConfig, context: Context) -> PreTrainedModel:
    """Return an untrained model in eval mode; the config and the context's seed decide its weights."""
    seed = int(torch.randint(2**62, (), generator=context.generator("tinymem", "initial weights")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(architecture(config), attn_implementation="sdpa")
    return model.to(context.device).eval()  # type: ignore[arg-type]


def architecture(config: TinyMemConfig) -> GPT2Config:
    """Return the architecture: no dropout, initializer range 0.8 / sqrt(width).

    Source: Sakarvadia et al. 2025, appendix.
    """
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=config.context,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.8 / math.sqrt(config.width),
        bos_token_id=BEGIN,
        eos_token_id=END,
        pad_token_id=PAD,
    )
