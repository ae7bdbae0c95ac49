"""Texts as token ids, by one rule: what the tokenizer itself puts before a text is part of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

from unmemorize.errors import DataError


class Bounds(NamedTuple):
    """A model's predictions for sequences."""

    vocabulary: int
    """Ids from 0 to this, exclusive."""
    context: int | None
    """The longest sequence that it can read, if it has a bound."""
    pad_id: int
    """What fills rows on the right: never attended to, so any id will do where the tokenizer has none for it."""
    padding: frozenset[int] = frozenset()
    """The ids that tokenizer and model call padding."""
    ends: frozenset[int] = frozenset()
    """The ids that they put before and after texts."""


def bounds_of(model: Any, tokenizer: Any = None) -> Bounds:
    """Return the vocabulary, the context and the padding of a loaded model and its tokenizer, which may be none."""
    config = model.config.get_text_config()
    vocabulary = int(model.get_input_embeddings().weight.shape[0])

    def said(*names: str) -> list[int]:
        values = (getattr(place, name, None) for name in names for place in (tokenizer, config))
        flat = (one for value in values for one in (value if isinstance(value, (list, tuple)) else [value]))
        return [int(one) for one in flat if isinstance(one, int) and 0 <= one < vocabulary]

    fills = [*said("pad_token_id"), *said("eos_token_id"), 0]
    return Bounds(
        vocabulary,
        getattr(config, "max_position_embeddings", None),
        fills[0],
        frozenset(said("pad_token_id")),
        frozenset(said("bos_token_id", "eos_token_id")),
    )


class Pair(NamedTuple):
    """A prompt and a suffix, tokenized as one text."""

    tokens: list[int]
    prompt: int
    """How many of the tokens are the prompt's."""
    note: str = ""
    """What is doubtful about the place where they meet."""


@dataclass(frozen=True)
class Tokenization:
    """What rows are read with. Without a tokenizer they must be token ids."""

    tokenizer: Any = None
    vocabulary: int | None = None
    """Ids from 0 to this, exclusive, are ids; not checked if it is none."""
    special_tokens: bool = True
    """Whether what the tokenizer puts before a text (`<s>`) is part of it; what it puts behind a text never is."""
    padding: frozenset[int] = field(default=frozenset())
    """Ids that are called padding."""
    ends: frozenset[int] = field(default=frozenset())
    """Ids that are put before and after texts."""

    @classmethod
    def of(cls, tokenizer: Any, bounds: Bounds, *, special_tokens: bool = True) -> Self:
        """Return how rows for a model of these bounds are read."""
        return cls(tokenizer, bounds.vocabulary, special_tokens, bounds.padding, bounds.ends)

    @cached_property
    def leading(self) -> tuple[int, ...]:
        """What stands before every text; empty where there is nothing, or where it is not wanted."""
        if self.tokenizer is None or not self.special_tokens:
            return ()
        plain, whole = self._plain("a"), list(self.tokenizer("a", verbose=False)["input_ids"])
        starts = (start for start in range(len(whole)) if whole[start : start + len(plain)] == plain)
        return tuple(whole[: next(starts, 0)])

    def in_words(self) -> str:
        """Return the rule as records state it."""
        if self.tokenizer is None:
            return "none: there is no tokenizer"
        if not self.special_tokens:
            return "none: special_tokens = false"
        names = " ".join(map(str, self.tokenizer.convert_ids_to_tokens(list(self.leading))))
        return f"{names} before each text" if names else "none: the tokenizer puts none before a text"

    def ids(self, text: str, where: str) -> list[int]:
        """Return a text's token ids, what the tokenizer puts before it included; nothing is put there twice.

        Raises:
            DataError: there is no tokenizer.
        """
        return self.led(self.body(text, where))

    def body(self, text: str, where: str) -> list[int]:
        """Return a text's token ids alone.

        Raises:
            DataError: there is no tokenizer.
        """
        self._check_tokenizer(where)
        return self._plain(text)

    def led(self, ids: list[int]) -> list[int]:
        """Return ids with what stands before every text, unless they begin with it."""
        return ids if self.led_by(ids) == len(self.leading) else [*self.leading, *ids]

    def led_by(self, ids: Sequence[int]) -> int:
        """Return how many ids at the beginning are what stands before every text."""
        return len(self.leading) if tuple(ids[: len(self.leading)]) == self.leading else 0

    def pair(self, prompt: str, suffix: str, where: str) -> Pair:
        """Return two texts tokenized as the one that they are parts of.

        The prompt is what the tokens of prompt and whole agree on, so that a space at its end may belong to the suffix.

        Raises:
            DataError: there is no tokenizer.
        """
        whole = self.body(prompt + suffix, where)
        added = len(self.led(whole)) - len(whole)
        for shown in (self._plain(prompt), self._plain(prompt.rstrip())):
            if whole[: len(shown)] == shown:
                return Pair(self.led(whole), added + len(shown), _missing_space(prompt, suffix))
        agreed = agreement(self._plain(prompt), whole)
        note = "prompt and suffix meet inside a token, which was counted to the suffix"
        return Pair(self.led(whole), added + agreed, note)

    def chat(self, messages: Sequence[Any], where: str) -> Pair:
        """Return a conversation as the tokenizer's chat template writes it; its prompt ends where the answer begins.

        Only a last message of the assistant is an answer; without one the prompt has no tokens.

        Raises:
            DataError: there is no tokenizer, it has no chat template, or the template refuses the messages.
        """
        self._check_tokenizer(where)
        check_encodable(json.dumps(messages, ensure_ascii=False, default=str), "messages", where)
        try:
            whole = self._templated(messages)
            answered = messages[-1]["role"] == "assistant" and len(messages) > 1
            shown = self._templated(messages[:-1], add_generation_prompt=True) if answered else []
        except Exception as error:  # templates are programs of their own
            raise DataError(
                f"{where}: messages cannot be written by the tokenizer's chat template: {_first_line(error)}",
                expected='[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}] and a template',
                fix="name a tokenizer with a chat template, or write the row as `text`, or as `prompt` and `suffix`",
            ) from error
        return Pair(whole, agreement(shown, whole))

    def _templated(self, messages: Sequence[Any], **more: Any) -> list[int]:
        text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, **more)
        return self._plain(text)  # a template writes special tokens itself

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _check_tokenizer(self, where: str) -> None:
        if self.tokenizer is None:
            raise DataError(
                f"{where}: the row is text, and the model came without a tokenizer",
                expected='rows of token ids, {"tokens": [464, 2068, ...]}, or a tokenizer beside the model',
                fix="tokenizer.save_pretrained(MODEL_FOLDER), in Python tokenizer=..., or write the rows as token ids",
            )


def check_encodable(text: str, part: str, where: str) -> None:
    """Refuse half of a surrogate pair, which is no character and which no tokenizer reads.

    Raises:
        DataError: there is one.
    """
    at = next((index for index, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
    if at is not None:
        raise DataError(
            f"{where}: {part} holds half of a character, {text[at]!a} at position {at}",
            expected="a text that can be written as UTF-8",
            fix="correct the row; in Python text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')",
        )


def agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    differing = (number for number, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differing, min(len(one), len(other)))


def _missing_space(prompt: str, suffix: str) -> str:
    """Say so where a word goes on from one text to the other; scripts without upper case have no spaces to miss."""

    def in_word(letter: str) -> bool:
        return letter.isdigit() or letter.lower() != letter.upper()

    if in_word(prompt[-1:]) and in_word(suffix[:1]):
        return "the suffix goes on in the middle of a word: is the space between prompt and suffix missing?"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
