"""Find out which windows of a corpus a language model regurgitates."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unmemorize.errors import ConfigError, DataError
from unmemorize.models.caller import plain_torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.config import StrictConfig
    from unmemorize.contracts.context import Progress
    from unmemorize.data.corpora import Corpus
    from unmemorize.data.row_source import RowSource
    from unmemorize.data.tokenization import Tokenization
    from unmemorize.models.source import AnyModel
    from unmemorize.search.config import FindConfig
    from unmemorize.search.control import Control
    from unmemorize.search.findings import Findings
    from unmemorize.search.search import Search

C = TypeVar("C", bound="StrictConfig")


@plain_torch()
def find(  # noqa: PLR0913  a verb takes keywords, so that a call reads like the command
    model: AnyModel,
    texts: Any,
    *,
    tokenizer: Any = None,
    control: AnyModel | None = None,
    control_tokenizer: Any = None,
    batch: int | None = None,
    device: str | None = None,
    state: str | Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Findings:
    """Check every window of some texts: shown its prompt, does the model decode exactly its suffix?

    Args:
        model: a loaded causal language model of transformers (PEFT adapters are merged into a copy), or where one is:
            a hub id, a folder, a GGUF file, `package:NAME/path`.
        texts: a file or folder, `package:NAME` or a path in it, `licences` (of the installed packages),
            `python-docs`, an `hf://` path; or texts or token ids themselves, in any kind that `mitigate` takes.
        tokenizer: the model's tokenizer, where the model is loaded already.
        control: a second model. What it completes too was predictable.
        control_tokenizer: its tokenizer, where it is loaded already; without one it shares the model's tokens.
        batch: windows that are read at once; by default as many as keep the logits at 64 MiB.
        device: where models go that are not loaded yet; the best one there is by default.
        state: a file that keeps what has been done, so that a killed search goes on where it was.
        fresh: forget what `state` holds.
        progress: where progress is shown; nowhere by default.
        settings: `prompt`, `suffix`, `stride`, `include`, `special_tokens`, `limit_tokens`, `copy_share`, `distinct`:
            see `FindConfig`.

    Raises:
        UnmemorizeError: the settings, the model or the texts cannot be used, or `state` belongs to another search.

    Cost: one pass over the first part of each window (prompt and 4 suffix tokens), and further ones over the few that
    are right so far. The texts are read and tokenized twice. Memory: the model, the logits of one batch, the text and
    the tokens of one document.
    """
    from unmemorize.contracts.context import Context, Silent
    from unmemorize.data.corpora import Corpus
    from unmemorize.data.documents import RowDocuments
    from unmemorize.data.tokenization import Tokenization, bounds_of
    from unmemorize.evaluation.extraction import WindowExtraction
    from unmemorize.search.config import FindConfig, SearchCall
    from unmemorize.search.families import marked
    from unmemorize.search.findings import Findings
    from unmemorize.search.log import SearchLog
    from unmemorize.search.search import Search, measure, search_all
    from unmemorize.search.triviality import Trivial
    from unmemorize.search.windows import Cut

    config, call = _validated(FindConfig, settings), _validated(SearchCall, {"batch": batch})
    opened = _opened(texts, config)
    loaded, own_tokenizer = _loaded(model, tokenizer, device, "the model")
    bounds = bounds_of(loaded, own_tokenizer)
    tokenization = Tokenization.of(own_tokenizer, bounds, special_tokens=config.special_tokens)
    place = str(texts) if isinstance(texts, (str, Path)) else None
    corpus = opened if isinstance(opened, Corpus) else RowDocuments(opened, tokenization, place)
    if own_tokenizer is None and any(document.tokens is None for document in islice(corpus.named(), 1)):
        raise _no_tokenizer()
    search = Search(
        extraction=WindowExtraction(loaded, config.prompt, call.batch),
        tokenization=tokenization,
        corpus=corpus,
        cut=Cut(config.prompt, config.suffix, config.stride),
        limit=config.limit_tokens,
        control=_control(control, control_tokenizer, tokenization, device),
    )
    extent = measure(search)
    path = None if state is None else Path(state)
    if fresh and path is not None:
        path.unlink(missing_ok=True)
    log = SearchLog(path, _identity(search, config))
    search_all(search, extent.windows, log, Context(progress=progress or Silent()))
    return Findings(
        windows=tuple(marked(log.state.found, Trivial(config.copy_share, config.distinct))),
        checked=log.state.windows,
        documents=extent.documents,
        tokens=extent.tokens,
        seconds=log.state.seconds,
        settings={**config.model_dump(mode="json"), "special_tokens": tokenization.in_words()},
        short=extent.short,
    )


def _validated(kind: type[C], settings: dict[str, Any]) -> C:
    from unmemorize.suite.error_messages import Place, validated

    try:
        return validated(kind, settings, Place("find(...)", ""))
    except ConfigError as error:
        raise ConfigError(error.what, expected=error.expected, fix="see `unmemorize find --help`") from None


def _opened(texts: Any, config: FindConfig) -> Corpus | RowSource:
    """Return a corpus of documents, or rows, each of which is a document."""
    from unmemorize.data.corpora import Corpus, open_corpus
    from unmemorize.data.reader import check_is_place, open_rows
    from unmemorize.data.sets import is_corpus

    if isinstance(texts, Corpus):
        return texts
    if is_corpus(texts):
        check_is_place(texts, "texts")
        return open_corpus(str(texts), setting="texts", include=config.include, lenient=True)
    return open_rows(texts, "texts")


def _loaded(model: AnyModel, tokenizer: Any, device: str | None, name: str) -> tuple[PreTrainedModel, Any]:
    from unmemorize.execution.environment import chosen_device
    from unmemorize.files.places import cache_folder
    from unmemorize.models.source import as_opened

    opened = as_opened(model, tokenizer, chosen_device(device), cache_folder(), name)
    return opened.model, opened.tokenizer


def _control(control: AnyModel | None, tokenizer: Any, own: Tokenization, device: str | None) -> Control | None:
    from unmemorize.search.control import Control, same_tokens

    if control is None:
        return None
    loaded, tokenizer = _loaded(control, tokenizer, device, "the control")
    shared = tokenizer is None or own.tokenizer is None or same_tokens(tokenizer, own.tokenizer)
    return Control(loaded, None if shared else tokenizer, special_tokens=own.special_tokens)


def _identity(search: Search, config: FindConfig) -> dict[str, Any]:
    """Return everything that decides which windows are found and what is written of each."""
    from unmemorize.search.search import weights_digest

    model, control = search.extraction.model, search.control
    settings = config.model_dump(mode="json", include={"prompt", "suffix", "stride", "limit_tokens", "special_tokens"})
    return {
        **settings,
        "texts": search.corpus.digest(),
        "model": weights_digest(model),
        "tokenizer": _tokenizer_digest(search.tokenization.tokenizer),
        "control": None if control is None else weights_digest(control.model),
    }


def _tokenizer_digest(tokenizer: Any) -> str:
    if tokenizer is None:
        return ""
    whole = tokenizer.backend_tokenizer.to_str() if getattr(tokenizer, "is_fast", False) else None
    said = repr(sorted(tokenizer.get_vocab().items())) if whole is None else whole
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _no_tokenizer() -> DataError:
    return DataError(
        "there is no tokenizer, so the texts cannot be cut into tokens",
        expected="a tokenizer beside the model, or given with it",
        fix="tokenizer.save_pretrained(MODEL_FOLDER); in Python also find(..., tokenizer=tokenizer)",
    )
