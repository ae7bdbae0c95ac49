"""A tiny GPT-2 that has learned a rule and memorized a few random rows: what selectivity is tested on.

Regular rows count upwards in a fixed step, modulo the vocabulary; the rows to forget are random, and repeated.
"""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, GPT2Config

from unmemorize import Context, Sequences, Testbed, TrainingRecipe, Window
from unmemorize.registry.manager import Registry
from unmemorize.testing.models import known_mlps
from unmemorize.toolkit import train

VOCABULARY = 32
PAD = VOCABULARY
LENGTH = 14
PROMPT = 5
MEMORIZED = 16
REPEATED = 8
RECIPE = TrainingRecipe(
    epochs=30, batch_size=64, learning_rate=1e-2, weight_decay=0.01, schedule="cosine", warmup_steps=20
)


def regular_rows() -> list[list[int]]:
    """Every start and every step from 1 to 4."""
    return [
        [(start + step * position) % VOCABULARY for position in range(LENGTH)]
        for step in range(1, 5)
        for start in range(VOCABULARY)
    ]


def random_rows(count: int) -> list[list[int]]:
    """Rows that follow no rule."""
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator).tolist()


def fresh_model() -> torch.nn.Module:
    """A GPT-2 of 2 layers, width 64 and 256 neurons a layer, the same each time."""
    config = GPT2Config(
        vocab_size=VOCABULARY + 1, n_positions=32, n_embd=64, n_layer=2, n_head=4, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=PAD, eos_token_id=PAD, pad_token_id=PAD,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoModelForCausalLM.from_config(config)


def build_planted() -> Testbed:
    """Train the model: it extracts every random row, and knows nine in ten tokens of regular rows that it never saw."""
    regular = Sequences.from_rows(regular_rows(), prompt=PROMPT, pad_id=PAD, first_id=1000)
    order = torch.randperm(len(regular), generator=torch.Generator().manual_seed(5))
    forget = Sequences.from_rows(random_rows(MEMORIZED), prompt=PROMPT, pad_id=PAD)
    extra, retain, holdout = (regular.select(part) for part in order.split([48, 48, 32]))
    shown = Sequences.concatenate([*[forget] * REPEATED, extra, retain])
    model = fresh_model()
    train(model, shown, RECIPE, Context(seed=0))
    return Testbed(
        name="planted",
        pad_id=PAD,
        model=model,
        forget=forget,
        retain=retain,
        extra=extra,
        holdouts={"regular": holdout},
        window=Window(PROMPT, LENGTH - PROMPT),
        recipe=RECIPE,
        mlps=known_mlps(model, Registry.load("none")),
    )
