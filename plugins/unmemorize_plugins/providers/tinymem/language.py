"""The provider `tinymem_language`: testbeds of text."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from tokenizers import Tokenizer

from unmemorize import Context, StrictConfig, Testbed
from unmemorize.toolkit import open_corpus
from unmemorize_plugins.providers.tinymem.language_config import TinyMemLanguageConfig
from unmemorize_plugins.providers.tinymem.language_sets import Chunks, build_language_sets
from unmemorize_plugins.providers.tinymem.model import Vocabulary, fresh_model
from unmemorize_plugins.providers.tinymem.sets import Sets
from unmemorize_plugins.providers.tinymem.tokenization import (
    END_OF_TEXT,
    open_tokenizer,
    token_ids,
    tokenizer_digest,
)
from unmemorize_plugins.providers.trained import TrainedHere

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Text(NamedTuple):
    tokenizer: Tokenizer
    chunks: Chunks


class TinyMemLanguage(TrainedHere[Sets]):
    """Small GPT-2 models trained from scratch on a corpus, with noise or a backdoor planted to be memorized."""

    name: ClassVar[str] = "tinymem_language"
    Config: ClassVar[type[StrictConfig]] = TinyMemLanguageConfig
    paper: ClassVar[str] = "Sakarvadia et al. 2025, Mitigating Memorization in Language Models (ICLR)"

    config: TinyMemLanguageConfig

    def fingerprint(self) -> dict[str, str]:
        """Return content hashes of the corpus and of the tokenizer's files."""
        return {
            "corpus": open_corpus(self.config.corpus).digest(),
            "tokenizer": tokenizer_digest(self.config.tokenizer),
        }

    def sets(self, context: Context) -> Sets:
        """Return the data of the context's seed."""
        return build_language_sets(
            self.config, self._text.chunks, lambda label: context.generator("tinymem_language", label)
        )

    def fresh_model(self, context: Context) -> PreTrainedModel:
        """Return the untrained model of the context's seed."""
        chunks = self._text.chunks
        size = max(chunks.vocabulary, chunks.pad_id + 1)
        return fresh_model(self.config, context, Vocabulary(size, chunks.pad_id, chunks.pad_id, chunks.pad_id))

    def testbed(self, model: PreTrainedModel, sets: Sets, facts: dict[str, Any]) -> Testbed:
        """Return the testbed around the trained model."""
        from transformers import PreTrainedTokenizerFast

        return Testbed(
            name=f"{self.name}-{self.config.artifact}-{self.config.size}",
            model=model,
            forget=sets.forget,
            retain=sets.retain,
            forget_unseen=sets.forget_unseen,
            holdouts=sets.holdouts,
            clean=sets.clean,
            extra=sets.extra,
            window=sets.window,
            pad_id=self._text.chunks.pad_id,
            tokenizer=PreTrainedTokenizerFast(tokenizer_object=self._text.tokenizer),
            recipe=self.config.recipe,
            trainable=True,
            modality="language",
            facts=facts,
        )

    @cached_property
    def _text(self) -> _Text:
        """The corpus as tokens: read once for all seeds and trainings of this provider."""
        config, corpus = self.config, open_corpus(self.config.corpus)
        tokenizer = open_tokenizer(config.tokenizer, corpus.documents(), config.vocabulary)
        most = None if config.chunks is None else config.chunks * config.chunk
        ids = token_ids(tokenizer, corpus.documents(), most)
        whole = len(ids) // config.chunk
        vocabulary = tokenizer.get_vocab_size()
        end = tokenizer.token_to_id(END_OF_TEXT)
        pad_id = vocabulary if end is None else end
        return _Text(tokenizer, Chunks(ids[: whole * config.chunk].view(whole, config.chunk), vocabulary, pad_id))
