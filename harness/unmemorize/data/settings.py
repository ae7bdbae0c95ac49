"""How sequences are read: the settings that suites, `mitigate` and its command share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unmemorize.contracts.config import StrictConfig

Refusal = Literal["refuse", "drop"]
Excess = Literal["refuse", "cut", "drop"]
Keeping = Literal["drop", "keep"]
Count = Annotated[int, Field(ge=1)]


class SequenceSettings(StrictConfig):
    """How sequences are read, the same for suites and for `mitigate`."""

    prompt: Count | None = None
    """Tokens shown in the extraction check; by default what the rows say, else 32, or half of a shorter row."""
    suffix: Count | None = None
    """Tokens that must come back; by default what the rows say, else 32 or what the shortest row has left."""
    special_tokens: bool = True
    """Whether what the tokenizer itself puts before a text (`<s>`) is part of it. Rows of ids are taken as they are."""
    max_rows: Count | None = None
    """Rows of `forget`, and of `forget_unseen`, at most, drawn at random; all by default."""
    text_rows: Count = 256
    """Rows of `retain`, and of each hold-out, at most, drawn from four times as many."""
    text_length: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a row of these at most: longer texts are cut into several; by default 128 or the model's context."""
    short_rows: Refusal = "refuse"
    """What becomes of memorized rows without room for prompt and suffix."""
    long_rows: Excess = "refuse"
    """What becomes of memorized rows longer than the model's context; to cut keeps their beginnings."""
    near_duplicates: Keeping = "drop"
    """What becomes of texts that share most 8-grams with a memorized row, or a hold-out's with one of `retain`."""
    marked: Keeping = "drop"
    """What becomes of memorized rows that `find` marked as trivial, overlapping or duplicate."""
