"""Tiny models of every built-in architecture, and a testbed around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from unmemorize.contracts.layout import MLP
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences, Testbed, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

Architecture = Literal["gpt2", "gpt_neox", "llama"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

VOCABULARY = 29
WIDTH = 16
LAYERS = 2


def tiny_model(architecture: Architecture, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a 2-layer model of width 16 with 4 heads and a vocabulary of 29, random but the same for each seed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    sizes: dict[str, dict[str, Any]] = {
        "gpt2": {
            "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "initializer_range": 0.3,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        },
        "gpt_neox": {
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 40,
            "max_position_embeddings": 64, "initializer_range": 0.3, "rotary_pct": 0.5,
        },
        "llama": {
            "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 40, "max_position_embeddings": 64, "initializer_range": 0.3,
        },
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(architecture, **shared, **sizes[architecture])
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def tiny_sequences(count: int, *, seed: int, first_id: int = 0, shortest: int = 9, longest: int = 14) -> Sequences:
    """Return random rows of different lengths with a prompt of 4 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    rows = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return Sequences.from_rows(rows, prompt=4, pad_id=2, first_id=first_id)


def tiny_testbed(model: PreTrainedModel, mlps: Sequence[MLP]) -> Testbed:
    """Return a testbed of random sequences around a model: 6 to forget, 10 to retain, one hold-out of 5."""
    return Testbed(
        name="tiny",
        model=model,
        forget=tiny_sequences(6, seed=1),
        forget_unseen=tiny_sequences(3, seed=2, first_id=100),
        retain=tiny_sequences(10, seed=3, first_id=200),
        extra=tiny_sequences(10, seed=4, first_id=300),
        holdouts={"one": tiny_sequences(5, seed=5, first_id=400)},
        window=Window(4, 6),
        pad_id=2,
        recipe=TrainingRecipe(epochs=1, batch_size=4),
        mlps=tuple(mlps),
    )
