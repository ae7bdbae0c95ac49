"""Small models in folders, and a toy tokenizer, for the tests of sources and providers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

WORDS = ["w0", "</s>", *(f"w{number}" for number in range(2, 29))]


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each of the words w0 to w28, the end of text in place of w1, and no padding."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def save(model: Any, folder: Path) -> Path:
    """Save without transformers' progress bar."""
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    return folder


def lay_out_as_hub(cache: Path, repository: str, revision: str, commit: str) -> Path:
    """Return a snapshot's folder in a hub cache at `cache`, with `revision` pointing at it; fill it with the model."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot
