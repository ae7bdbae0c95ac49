"""What must be true of every testbed's sets before anything is measured on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unmemorize.errors import DataError

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Sequences, Testbed


class Overlap(NamedTuple):
    """Rows that two sets share and must not."""

    rows: int
    left: str
    right: str

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.left!r} stand in {self.right!r}, too"


def check_data(provider: str, testbed: Testbed) -> None:
    """Refuse sets on which numbers would mean nothing.

    Raises:
        DataError: a set is misshapen, holds ids that the model does not have or one id twice, or shares rows with a set
            that methods may keep or that is measured.
    """
    vocabulary = vocabulary_of(testbed)
    problems = [
        f"in the set {name!r} {problem}"
        for name, sequences in testbed.sets().items()
        if (problem := misshapen(sequences) or foreign_ids(sequences, vocabulary) or repeated_ids(sequences))
    ]
    problems = problems or [str(overlap) for overlap in overlaps(testbed)]
    if problems:
        raise DataError(
            f"provider {provider!r}: {problems[0]}",
            expected="sets whose shapes fit together, of the model's own ids, that share no row",
            fix=f"`unmemorize check {provider}` shows every rule that its testbeds break",
        )


def misshapen(sequences: Sequences) -> str:
    """Return in words what does not fit together in a set; nothing if all does."""
    rows, width = sequences.tokens.shape if sequences.tokens.ndim == 2 else (-1, -1)
    if rows < 0:
        return f"tokens have the shape {tuple(sequences.tokens.shape)}"
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("lengths", "suffix_starts", "ids", "copies"), (rows,))
    expected |= {"tokens": (rows, width), "clean_tokens": (rows, width), "clean_lengths": (rows,)}
    for name, shape in expected.items():
        value = getattr(sequences, name)
        if value is not None and (tuple(value.shape), value.dtype, value.device.type) != (shape, torch.int64, "cpu"):
            return f"{name} is {tuple(value.shape)} {value.dtype} on {value.device.type}"
    if (sequences.clean_tokens is None) != (sequences.clean_lengths is None):
        return "clean_tokens and clean_lengths are not both there"
    lengths = sequences.lengths
    if rows and (int(lengths.min()) < 1 or int(lengths.max()) > width):
        return f"lengths go from {int(lengths.min())} to {int(lengths.max())}, with {width} columns"
    if rows and (int(sequences.suffix_starts.min()) < 0 or bool((sequences.suffix_starts > lengths).any())):
        return "some suffix starts before the first token or after the last one"
    return "some copies are negative" if rows and int(sequences.copies.min()) < 0 else ""


def foreign_ids(sequences: Sequences, vocabulary: int) -> str:
    """Return in words which token ids, padding included, the model does not have; nothing if it has all."""
    for tokens in (sequences.tokens, sequences.clean_tokens):
        if tokens is not None and tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary):
            return (
                f"ids go from {int(tokens.min())} to {int(tokens.max())}, and the model's vocabulary has {vocabulary}"
            )
    return ""


def repeated_ids(sequences: Sequences) -> str:
    """Return in words that some rows have one id; nothing if each has its own."""
    different = len(set(sequences.ids.tolist()))
    return f"{len(sequences)} rows have {different} ids" if different < len(sequences) else ""


def vocabulary_of(testbed: Testbed) -> int:
    """Return how many token ids the model has."""
    embedding: Any = testbed.model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def overlaps(testbed: Testbed) -> Iterator[Overlap]:
    """Yield where a memorized row stands in a set that methods may keep, or a hold-out in one that they see."""
    sets = {name: set(rows_of(sequences)) for name, sequences in testbed.sets().items()}
    holdouts = [name for name in sets if name.startswith("holdout:")]
    pairs = [(secret, other) for secret in ("forget", "forget_unseen") for other in ("retain", "extra", *holdouts)]
    pairs += [("forget", "forget_unseen")]
    pairs += [(holdout, seen) for holdout in holdouts for seen in ("retain", "extra", "clean")]
    for left, right in pairs:
        shared = sets.get(left, set()) & sets.get(right, set())
        if shared:
            yield Overlap(len(shared), left, right)


def rows_of(sequences: Sequences) -> list[bytes]:
    """Return the real tokens of each row, in a form that can be compared."""
    tokens = sequences.tokens.contiguous().numpy()
    return [row[:length].tobytes() for row, length in zip(tokens, sequences.lengths.tolist(), strict=True)]
