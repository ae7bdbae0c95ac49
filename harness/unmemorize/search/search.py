"""Go through a corpus, window by window, and keep those that the model regurgitates."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.data.corpora import Corpus
from unmemorize.data.tokenization import Tokenization
from unmemorize.errors import DataError
from unmemorize.evaluation.extraction import SuffixReading, WindowExtraction
from unmemorize.search.control import Control
from unmemorize.search.found import DIGITS, FoundWindow
from unmemorize.search.log import SearchLog
from unmemorize.search.triviality import copy_share
from unmemorize.search.windows import Cut, DocumentWindow, Extent, extent, tokenized, windows
from unmemorize.training.losses import vocabulary_of

_REMEMBERED = 2_000_000
"""Windows whose answer is kept, so that a text that stands in a hundred files is read once: about 200 MB."""


class Search(NamedTuple):
    """What is searched, in what, and how."""

    extraction: WindowExtraction
    tokenization: Tokenization
    corpus: Corpus
    cut: Cut
    limit: int | None = None
    """Tokens of the corpus to read; none: all of it."""
    control: Control | None = None


def measure(search: Search) -> Extent:
    """Return how much there is to check, before any of it is.

    Raises:
        DataError: there is no window, or the model cannot read these tokens or windows of this length.
    """
    cut, model = search.cut, search.extraction.model
    _check_length(cut, model)
    found = extent(tokenized(search.tokenization, search.corpus, search.limit), cut)
    if not found.windows:
        raise DataError(
            f"the texts hold no window of {cut.length} tokens ({found.documents} documents, {found.tokens} tokens)",
            expected=f"a document of at least {cut.prompt} + {cut.suffix} tokens",
            fix="name more text (each line of a *.txt is a text of its own: longer ones go into a folder, each "
            "in a file, or into a *.jsonl), or choose shorter windows: prompt=..., "
            "suffix=... (on the command line --prompt, --suffix)",
        )
    vocabulary = _embedded(model)
    if found.largest >= vocabulary:
        raise DataError(
            f"the tokenizer gives the id {found.largest}, and the model has embeddings for {vocabulary} tokens",
            expected="the tokenizer that the model was trained with",
            fix="name the folder that holds both, or pass the model's own tokenizer",
        )
    return found


def search_all(search: Search, total: int, log: SearchLog, context: Context) -> None:
    """Check all windows that `log` does not know yet, and write down what is found.

    Args:
        search: what is searched.
        total: the number of windows, as `measure` gives it.
        log: what has been done, and where more is written down.
        context: shows progress.
    """
    remembered: dict[bytes, SuffixReading | None] = {}
    with context.progress.task("checking windows", total) as advance:
        advance(log.state.windows)
        remaining = islice(_windows(search), log.state.windows, None)
        begin = time.perf_counter()
        while batch := list(islice(remaining, search.extraction.windows_at_once())):
            found = [
                _found(window, reading, search)
                for window, reading in zip(batch, _readings(search.extraction, batch, remembered), strict=True)
                if reading is not None
            ]
            now = time.perf_counter()
            log.add(len(batch), now - begin, found)
            begin = now
            advance(len(batch))
            context.check_deadline("the search")


def _windows(search: Search) -> Iterator[DocumentWindow]:
    return windows(tokenized(search.tokenization, search.corpus, search.limit), search.cut)


def _readings(
    extraction: WindowExtraction, batch: list[DocumentWindow], remembered: dict[bytes, SuffixReading | None]
) -> list[SuffixReading | None]:
    """Return the reading of each window, each different window being read once."""
    keys = [hashlib.blake2b(array("q", window.tokens).tobytes(), digest_size=12).digest() for window in batch]
    fresh = {key: window.tokens for key, window in zip(keys, batch, strict=True) if key not in remembered}
    if len(remembered) + len(fresh) > _REMEMBERED:
        remembered.clear()
        fresh = {key: window.tokens for key, window in zip(keys, batch, strict=True)}
    remembered.update(zip(fresh, extraction.readings(list(fresh.values())), strict=True))
    return [remembered[key] for key in keys]


def _found(window: DocumentWindow, reading: SuffixReading, search: Search) -> FoundWindow:
    cut, document, tokens = search.cut, window.document, list(window.tokens)
    first = window.start - len(document.leading)
    border, end = first + cut.prompt, first + cut.length
    prompt_text, suffix_text = document.text_of(window.start, border), document.text_of(border, end)
    control = None
    if search.control is not None:
        control = search.control.reading(tokens, cut.prompt, prompt_text, suffix_text)
    return FoundWindow(
        tokens=tokens,
        prompt=cut.prompt,
        suffix=cut.suffix,
        prompt_text=prompt_text,
        suffix_text=suffix_text,
        source=document.source,
        char_offset=document.offset(window.start),
        token_offset=window.start,
        logprob=round(reading.logprob, DIGITS),
        margin=round(reading.margin, DIGITS),
        copy_share=round(copy_share(tokens[: cut.prompt], tokens[cut.prompt :]), DIGITS),
        distinct=len(set(tokens[cut.prompt :])),
        control_extracted=None if control is None else control.extractable,
        control_share=None if control is None else round(control.hits / control.tokens, DIGITS),
    )


def _check_length(cut: Cut, model: PreTrainedModel) -> None:
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and cut.length > longest:
        raise DataError(
            f"windows of {cut.prompt} + {cut.suffix} tokens are longer than the model's context of {longest}",
            expected=f"a prompt and a suffix of at most {longest} tokens together",
            fix="prompt={0}, suffix={0} (on the command line --prompt {0} --suffix {0})".format(max(1, longest // 2)),
        )


def _embedded(model: PreTrainedModel) -> int:
    embedding: Any = model.get_input_embeddings()
    return min(int(embedding.weight.shape[0]), vocabulary_of(model))


def weights_digest(model: PreTrainedModel) -> str:
    """Return a hash of a model's configuration and weights, computed where they are.

    Of each parameter enter its name, its shape and the sum of its bit patterns, read as integers: exact in any order.

    Cost: one read of the weights.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = model.config.to_dict()
    deciding = {name: config[name] for name in sorted(config) if name not in _INDIFFERENT}
    digest.update(repr(deciding).encode())
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    for name, parameter in model.named_parameters():
        bits = parameter.detach().contiguous().view(integers[parameter.element_size()])
        total = int(bits.sum(dtype=torch.int64))
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)} {total};".encode())
    return digest.hexdigest()


_INDIFFERENT = ("_name_or_path", "transformers_version", "dtype", "use_cache")
"""Fields of a configuration that say nothing about what the model computes."""
