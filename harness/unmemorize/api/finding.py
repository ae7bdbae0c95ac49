"""Find out which windows of a corpus a language model regurgitates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Progress
    from unmemorize.data.corpora import Corpus
    from unmemorize.models.source import ModelSource, Opened
    from unmemorize.search.config import FindConfig
    from unmemorize.search.control import Control
    from unmemorize.search.findings import Findings
    from unmemorize.search.search import Search

    AnyModel = PreTrainedModel | Opened | ModelSource | str


def find(  # noqa: PLR0913  a verb takes keywords, so that a call reads like the command
    model: AnyModel,
    texts: str | Path | Corpus | Sequence[str],
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
        model: a loaded causal language model of transformers, or where one is: a hub id, a folder, a GGUF file,
            `package:NAME/path`.
        texts: a file or folder, `package:NAME` or a path in it, `licences` (of the installed packages),
            `python-docs`, an `hf://` path; or a list of texts.
        tokenizer: the model's tokenizer, where the model is loaded already.
        control: a second model. What it completes too was predictable.
        control_tokenizer: its tokenizer, where it is loaded already; without one it shares the model's tokens.
        batch: windows that are read at once; by default as many as keep the logits at 64 MiB.
        device: where models go that are not loaded yet; the best one there is by default.
        state: a file that keeps what has been done, so that a killed search goes on where it was.
        fresh: forget what `state` holds.
        progress: where progress is shown; nowhere by default.
        settings: `prompt`, `suffix`, `stride`, `include`, `limit_tokens`, `copy_share`, `distinct`: see `FindConfig`.

    Raises:
        UnmemorizeError: the settings, the model or the texts cannot be used, or `state` belongs to another search.

    Cost: one pass over the first part of each window (prompt and 4 suffix tokens), and further ones over the few that
    are right so far. The texts are read and tokenized twice. Memory: the model, the logits of one batch, the text and
    the tokens of one document.
    """
    from unmemorize.contracts.context import Context, Silent
    from unmemorize.search.extraction import WindowExtraction
    from unmemorize.search.families import marked
    from unmemorize.search.findings import Findings
    from unmemorize.search.log import SearchLog
    from unmemorize.search.search import Search, measure, search_all
    from unmemorize.search.signs import Trivial
    from unmemorize.search.windows import Cut

    config = _config(settings)
    corpus = _corpus(texts, config)
    loaded, own_tokenizer = _loaded(model, tokenizer, device)
    if own_tokenizer is None:
        raise _no_tokenizer()
    search = Search(
        extraction=WindowExtraction(loaded, config.prompt, batch),
        tokenizer=own_tokenizer,
        corpus=corpus,
        cut=Cut(config.prompt, config.suffix, config.stride),
        limit=config.limit_tokens,
        control=_control(control, control_tokenizer, own_tokenizer, device),
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
        settings=config.model_dump(mode="json"),
    )


def _config(settings: dict[str, Any]) -> FindConfig:
    from unmemorize.search.config import FindConfig
    from unmemorize.suite.complaint import Place, validated

    try:
        return validated(FindConfig, settings, Place("find(...)", ""))
    except ConfigError as error:
        raise ConfigError(error.what, expected=error.expected, fix="see `unmemorize find --help`") from None


def _corpus(texts: str | Path | Corpus | Sequence[str], config: FindConfig) -> Corpus:
    from unmemorize.data.corpora import Corpus, open_corpus
    from unmemorize.search.windows import Texts

    if isinstance(texts, Corpus):
        return texts
    if isinstance(texts, (str, Path)):
        return open_corpus(str(texts), setting="texts", include=config.include, lenient=True)
    return Texts(texts)


def _loaded(model: AnyModel, tokenizer: Any, device: str | None) -> tuple[PreTrainedModel, Any]:
    from unmemorize.execution.environment import best_device
    from unmemorize.files.places import cache_folder
    from unmemorize.models.source import ModelSource, Opened, open_model

    if isinstance(model, str):
        model = ModelSource(model=model)
    if isinstance(model, ModelSource):
        model = open_model(model, device=device or best_device(), cache=cache_folder())
    if isinstance(model, Opened):
        return model.model, model.tokenizer if tokenizer is None else tokenizer
    return model, tokenizer


def _control(control: AnyModel | None, tokenizer: Any, own: Any, device: str | None) -> Control | None:
    from unmemorize.search.control import Control, same_tokens

    if control is None:
        return None
    loaded, tokenizer = _loaded(control, tokenizer, device)
    return Control(loaded, None if tokenizer is None or same_tokens(tokenizer, own) else tokenizer)


def _identity(search: Search, config: FindConfig) -> dict[str, Any]:
    """Return everything that decides which windows are found and what is written of each."""
    from unmemorize.search.search import weights_digest

    model, control = search.extraction.model, search.control
    settings = config.model_dump(mode="json", include={"prompt", "suffix", "stride", "limit_tokens"})
    return {
        **settings,
        "texts": search.corpus.digest(),
        "model": weights_digest(model),
        "tokenizer": _tokenizer_digest(search.tokenizer),
        "control": None if control is None else weights_digest(control.model),
    }


def _tokenizer_digest(tokenizer: Any) -> str:
    whole = tokenizer.backend_tokenizer.to_str() if getattr(tokenizer, "is_fast", False) else None
    said = repr(sorted(tokenizer.get_vocab().items())) if whole is None else whole
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _no_tokenizer() -> DataError:
    return DataError(
        "there is no tokenizer, so the texts cannot be cut into tokens",
        expected="a tokenizer beside the model, or given with it",
        fix="find(model, texts, tokenizer=AutoTokenizer.from_pretrained(...))",
    )
