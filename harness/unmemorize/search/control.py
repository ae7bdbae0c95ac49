"""A second model as a control: what it also completes was predictable, or is known to everyone."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from unmemorize.data.tokenization import Tokenization
from unmemorize.evaluation.extraction import SuffixReading, read_alone
from unmemorize.models.versions import evaluation_mode


class Control:
    """Asks a control model for the same suffix after the same prompt.

    Args:
        model: another causal language model, best of the same size and not trained on the texts.
        tokenizer: its tokenizer; none if it shares the tokens of the first model.
        special_tokens: whether what that tokenizer puts before a text stands in front of the prompt.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any = None, *, special_tokens: bool = True) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.tokenization = Tokenization(tokenizer, special_tokens=special_tokens)

    def reading(self, tokens: list[int], prompt: int, prompt_text: str, suffix_text: str) -> SuffixReading:
        """Return the control's predictions of the suffix: of its own tokens of that text, where they differ.

        Only the last tokens are shown to a control that cannot read them all.
        """
        if self.tokenizer is not None:
            made = self.tokenization.pair(prompt_text, suffix_text, "the control")
            tokens, prompt = made.tokens, max(1, min(made.prompt, len(made.tokens) - 1))
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or len(tokens)
        cut = min(max(0, len(tokens) - longest), prompt - 1)
        with evaluation_mode(self.model):
            return read_alone(self.model, tokens[cut : cut + longest], prompt - cut)


def same_tokens(one: Any, other: Any) -> bool:
    """Say whether two tokenizers give every text the same tokens, as far as their vocabularies show."""
    return bool(one.get_vocab() == other.get_vocab())
