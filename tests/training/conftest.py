"""Tiny real models and data for the training room."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from unmemorize.contracts.testbed import Sequences


def build_model(*, dropout: float = 0.0, seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=12, n_positions=16, n_embd=16, n_layer=2, n_head=2, resid_pdrop=dropout,
            embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=1, pad_token_id=11,
        )  # fmt: skip
        return GPT2LMHeadModel(config).eval()


def build_rows(count: int = 22, *, seed: int = 0) -> Sequences:
    """Rows of lengths 2 to 12, which no two neighbours share."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [2 + (5 * number) % 11 for number in range(count)]
    rows = [torch.randint(2, 11, (length,), generator=generator).tolist() for length in lengths]
    return Sequences.from_rows(rows, prompt=3, pad_id=11)


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return build_model


@pytest.fixture
def make_rows() -> Callable[..., Sequences]:
    return build_rows


@pytest.fixture
def model() -> PreTrainedModel:
    return build_model()


@pytest.fixture
def rows() -> Sequences:
    return build_rows()
