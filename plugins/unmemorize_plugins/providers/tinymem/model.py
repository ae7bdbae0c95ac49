"""TinyMem's model: a small GPT-2 with ReLU, fresh or from the cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from unmemorize import Context
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.language_config import TinyMemLanguageConfig
from unmemorize_plugins.providers.tinymem.math_data import BEGIN, END, PAD, VOCABULARY

if TYPE_CHECKING:
    from transformers import GPT2Config, PreTrainedModel


class Vocabulary(NamedTuple):
    """How many token ids there are, and the special ones among them."""

    size: int
    begin: int
    end: int
    pad: int


MATH = Vocabulary(VOCABULARY, BEGIN, END, PAD)


def fresh_model(
    config: TinyMemConfig | TinyMemLanguageConfig, context: Context, vocabulary: Vocabulary = MATH
) -> PreTrainedModel:
    """Return an untrained model in eval mode; the config and the context's seed decide its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    seed = int(torch.randint(2**62, (), generator=context.generator("tinymem", "initial weights")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            architecture(config, vocabulary), attn_implementation="sdpa"
        )
    return model.to(context.device).eval()  # type: ignore[arg-type]


def architecture(config: TinyMemConfig | TinyMemLanguageConfig, vocabulary: Vocabulary) -> GPT2Config:
    """Return the architecture: no dropout, initializer range 0.8 / sqrt(width).

    Source: Sakarvadia et al. 2025, appendix.
    """
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocabulary.size,
        n_positions=config.context,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=0.8 / math.sqrt(config.width),
        bos_token_id=vocabulary.begin,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
    )
