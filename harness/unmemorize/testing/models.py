"""Tiny models of every built-in architecture, and a testbed around them."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from unmemorize.contracts.layout import MLP
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences, Testbed, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from unmemorize.registry.manager import Registry

Architecture = Literal["gpt2", "gpt_neox", "llama"]
"""What a tiny model can be: the value of its `config.model_type`."""
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
"""Every architecture of tiny models."""

VOCABULARY = 29
WIDTH = 16
LAYERS = 2


def tiny_model(architecture: Architecture, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a 2-layer model of width 16 with 4 heads and a vocabulary of 29, random but the same for each seed."""
    model = build_model(
        architecture, vocabulary=VOCABULARY, width=WIDTH, neurons=None, positions=64, spread=0.3, seed=seed
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def build_model(
    architecture: Architecture,
    *,
    vocabulary: int,
    width: int,
    neurons: int | None,
    positions: int,
    spread: float,
    seed: int,
) -> PreTrainedModel:
    """Return a model of 2 layers and 4 heads without dropout, in eval mode, the same for each seed.

    Args:
        architecture: its `model_type`.
        vocabulary: number of token ids.
        width: of the residual stream.
        neurons: of each MLP; 64 in GPT-2 and 40 in the others where it is not given.
        positions: longest sequence.
        spread: standard deviation of the initial weights.
        seed: decides the weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, dict[str, Any]] = {
        "gpt2": {
            "n_embd": width, "n_layer": LAYERS, "n_head": 4, "n_positions": positions, "n_inner": neurons,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        },
        "gpt_neox": {
            "hidden_size": width, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
            "intermediate_size": neurons or 40, "max_position_embeddings": positions, "rotary_pct": 0.5,
        },
        "llama": {
            "hidden_size": width, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": neurons or 40, "max_position_embeddings": positions,
        },
    }  # fmt: skip
    special = (0, 1, 2) if neurons is None else (vocabulary - 1,) * 3
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(
            architecture, vocab_size=vocabulary, initializer_range=spread,
            **dict(zip(names, special, strict=True)), **sizes[architecture],
        )  # fmt: skip
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval()


def tiny_sequences(count: int, *, seed: int, first_id: int = 0, shortest: int = 9, longest: int = 14) -> Sequences:
    """Return random rows of different lengths with a prompt of 4 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    rows = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return Sequences.from_rows(rows, prompt=4, pad_id=2, first_id=first_id)


def tiny_testbed(model: PreTrainedModel, mlps: Sequence[MLP] | None = None) -> Testbed:
    """Return a testbed of random sequences around a model: 6 to forget, 10 to retain, one hold-out of 5.

    Args:
        model: a tiny model.
        mlps: its MLPs; looked up in the installed layouts where they are not given.
    """
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
        mlps=known_mlps(model) if mlps is None else tuple(mlps),
    )


def known_mlps(model: PreTrainedModel, registry: Registry | None = None) -> tuple[MLP, ...]:
    """Return the MLPs of a model, or none where they cannot be found.

    Args:
        model: the model.
        registry: where the layout is looked up; what is installed by default.
    """
    from unmemorize.execution.architecture import find_mlps

    return find_mlps(model, registry or _installed(os.environ.get("UNMEMORIZE_PLUGINS"))).mlps


@lru_cache(maxsize=2)
def _installed(_restriction: str | None) -> Registry:
    from unmemorize.registry.manager import Registry

    return Registry.load()
