"""Tokenizers of language testbeds: trained on the corpus, or read from files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from unmemorize import DataError
from unmemorize.toolkit import located

if TYPE_CHECKING:
    from torch import Tensor

TRAINED = "trained"
END_OF_TEXT = "<|endoftext|>"
_ENOUGH = 20_000_000
"""Characters of a corpus that a tokenizer is trained on; more would hardly change a small vocabulary."""
_BPE_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""The two names under which GPT-2's vocabulary and merges go about."""


def tokenizer_digest(name: str) -> str:
    """Return a hash of the files of the tokenizer that the setting `tokenizer` names."""
    if name == TRAINED:
        return TRAINED
    return hashlib.blake2b(b"".join(file.read_bytes() for file in _files(name)), digest_size=16).hexdigest()


def open_tokenizer(name: str, documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return the tokenizer that the setting `tokenizer` names; a byte-level BPE of `documents` if it is `trained`.

    Raises:
        DataError: there is no such file or folder, or it holds no tokenizer.
    """
    if name == TRAINED:
        return _train(documents, vocabulary)
    files = _files(name)
    try:
        if len(files) == 1:
            return Tokenizer.from_file(str(files[0]))
        return _byte_level(models.BPE.from_file(str(files[0]), str(files[1])))
    except Exception as error:  # the library raises plain exceptions
        raise DataError(
            f"tokenizer = {name!r}: {files[0].name} cannot be read: {error}",
            expected="a tokenizer.json of `tokenizers`, or GPT-2's vocabulary and merges",
            fix=f"write it anew, e.g. with `Tokenizer.save`, or set tokenizer = {TRAINED!r}",
        ) from error


def token_ids(tokenizer: Tokenizer, documents: Iterable[str], most: int | None) -> Tensor:
    """Return the ids of all documents one after another, two line breaks after each, (n,) int64; at most `most`.

    Memory: 12 bytes per token, and the texts of 1,000 documents.
    """
    import torch

    parts, count = [torch.empty(0, dtype=torch.int32)], 0
    separated = (document.rstrip("\n") + "\n\n" for document in documents)
    while (most is None or count < most) and (batch := list(islice(separated, 1000))):
        encodings = tokenizer.encode_batch(batch, add_special_tokens=False)
        parts.append(torch.tensor([i for encoding in encodings for i in encoding.ids], dtype=torch.int32))
        count += len(parts[-1])
    return torch.cat(parts)[:most].long()


def _files(name: str) -> list[Path]:
    place = located(name, "tokenizer")
    if place.is_file():
        return [place]
    for names in (("tokenizer.json",), *_BPE_FILES):
        files = [place / each for each in names]
        if all(file.is_file() for file in files):
            return files
    raise DataError(
        f"tokenizer = {name!r}: the folder holds no tokenizer",
        expected="tokenizer.json, vocab.json with merges.txt, or encoder.json with vocab.bpe",
        fix=f"name a folder that does, or set tokenizer = {TRAINED!r}",
    )


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _train(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_beginning(documents), trainer)
    return tokenizer


def _beginning(documents: Iterable[str]) -> Iterator[str]:
    seen = 0
    for document in documents:
        if seen >= _ENOUGH:
            return
        seen += len(document)
        yield document
