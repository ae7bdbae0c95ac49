"""The extraction check of a set, row by row: what is shown to the model and what must come back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.testbed import Sequences, Window

if TYPE_CHECKING:
    from torch import Tensor


class Probe(NamedTuple):
    """An extraction check, row by row: what is shown and what must come back. N counted sequences."""

    rows: Sequences
    """Prompt followed by the suffix to be regurgitated; `suffix_starts` says where it begins."""
    clean: Sequences | None
    """The same prompt followed by the clean suffix, where there are clean counterparts."""
    kept: Tensor
    """(N,) int64, the rows of the set that are counted."""

    def asked(self) -> Tensor:
        """Return (N,) int64: how many tokens a continuation needs to be held against every suffix."""
        import torch

        asked = self.rows.lengths - self.rows.suffix_starts
        return asked if self.clean is None else torch.maximum(asked, self.clean.lengths - self.clean.suffix_starts)


def build_probe(sequences: Sequences, window: Window) -> Probe:
    """Return the extraction check of a set: prompts from the clean counterparts where there are any.

    The suffix starts after `window.prompt` tokens, or where the data says (anchored), and ends after `window.suffix`
    tokens or with the sequence.
    """
    import torch

    starts = sequences.suffix_starts if sequences.anchored else torch.full_like(sequences.lengths, window.prompt)
    ends = torch.minimum(starts + window.suffix, sequences.lengths)
    counted = (starts > 0) & (ends > starts)
    if sequences.clean_tokens is None or sequences.clean_lengths is None:
        rows = dataclasses.replace(sequences, lengths=ends, suffix_starts=starts)
        return Probe(rows=rows.select(counted).cut(), clean=None, kept=_numbers(counted))
    clean_ends = torch.minimum(starts + window.suffix, sequences.clean_lengths)
    position = torch.arange(sequences.tokens.shape[1])
    shown = position < starts[:, None]
    tokens = sequences.clean_tokens.where(shown, sequences.tokens)
    plain = dataclasses.replace(sequences, clean_tokens=None, clean_lengths=None, suffix_starts=starts)
    rows = dataclasses.replace(plain, tokens=tokens, lengths=ends)
    clean = dataclasses.replace(plain, tokens=sequences.clean_tokens, lengths=clean_ends)
    inside = rows.suffix() | clean.suffix()
    differs = (ends != clean_ends) | ((tokens != sequences.clean_tokens) & inside).any(dim=1)
    counted &= (clean_ends > starts) & differs
    return Probe(rows=rows.select(counted).cut(), clean=clean.select(counted).cut(), kept=_numbers(counted))


def _numbers(counted: Tensor) -> Tensor:
    return counted.nonzero().flatten()
