"""A second model as a control: what it also completes was predictable, or is known to everyone."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from unmemorize.models.versions import evaluation_mode
from unmemorize.search.extraction import SuffixReading, read_alone


class Control:
    """Asks a control model for the same suffix after the same prompt.

    Args:
        model: another causal language model, best of the same size and not trained on the texts.
        tokenizer: its tokenizer; none if it shares the tokens of the first model.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any = None) -> None:
        self.model, self.tokenizer = model, tokenizer

    def reading(self, tokens: list[int], prompt: int, prompt_text: str, suffix_text: str) -> SuffixReading:
        """Return what the control says about the suffix: of its own tokens of that text, where they differ.

        Only the last tokens are shown to a control that cannot read them all.
        """
        if self.tokenizer is not None:
            shown = _ids(self.tokenizer, prompt_text)
            whole = _ids(self.tokenizer, prompt_text + suffix_text)
            # A token across the border belongs to the suffix: the prompt is what both ways of tokenizing agree on.
            agreed = (number for number, pair in enumerate(zip(shown, whole, strict=False)) if pair[0] != pair[1])
            tokens, prompt = whole, max(1, next(agreed, min(len(shown), len(whole) - 1)))
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or len(tokens)
        cut = min(max(0, len(tokens) - longest), prompt - 1)
        with evaluation_mode(self.model):
            return read_alone(self.model, tokens[cut : cut + longest], prompt - cut)


def same_tokens(one: Any, other: Any) -> bool:
    """Say whether two tokenizers give every text the same tokens, as far as their vocabularies show."""
    return bool(one.get_vocab() == other.get_vocab())


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
