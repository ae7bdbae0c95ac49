"""Windows of text, and which of them is planted, which is background, and which nobody sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from unmemorize import DataError, Sequences, Window
from unmemorize_plugins.providers.planted.config import PlantedConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FEWEST_DISTINCT = 16
"""A window whose suffix has fewer distinct tokens can be guessed: regurgitating it would say nothing."""

MOST_COPIED = 0.25
"""Nor one of whose suffix's 4-grams a larger share stands in its prompt."""


class Documents(NamedTuple):
    """A corpus, cut into windows of equal length from the beginning of each document. W windows, T tokens."""

    tokens: Tensor
    """(W, T) int64; the number of a row is its example id."""
    document: Tensor
    """(W,) int64, the number of the document that each window comes from."""


class Sets(NamedTuple):
    """Everything that is made of one config, one corpus and one seed."""

    training: Sequences
    """Every planted window `rounds` times, and the background."""
    forget: Sequences
    forget_unseen: Sequences | None
    retain: Sequences
    holdout: Sequences
    window: Window
    background_windows: int
    """How many different ones there are."""


def cut(documents: Sequence[Sequence[int]], length: int, leading: Sequence[int] = ()) -> Documents:
    """Cut tokenized documents into whole windows of `length` tokens; what is left at a document's end is dropped.

    Each window begins with `leading`: what the tokenizer puts before every text.
    """
    import torch

    rows, origin, step = [], [], length - len(leading)
    for number, ids in enumerate(documents):
        for start in range(0, len(ids) - step + 1, step):
            rows.append(torch.tensor([*leading, *ids[start : start + step]], dtype=torch.int64))
            origin.append(number)
    tokens = torch.stack(rows) if rows else torch.empty(0, length, dtype=torch.int64)
    return Documents(tokens, torch.tensor(origin, dtype=torch.int64))


def build_sets(config: PlantedConfig, documents: Documents, pad_id: int, generator: torch.Generator) -> Sets:
    """Return all sets; the same config, documents and generator give the same sets.

    Documents are taken in random order: first those to be planted (until they hold twice the windows that are needed),
    then the hold-out's, and all others are background.

    Raises:
        DataError: there are too few documents or windows.
    """
    import torch

    planted, holdout, background = _roles(config, documents, generator)
    seen = _sequences(documents, planted[: config.forget], config, pad_id)
    unseen = _sequences(documents, planted[config.forget :], config, pad_id) if config.unseen else None
    others = _sequences(documents, background, config, pad_id)
    shown = [seen] if unseen is None else [seen, unseen]
    count = max(1, round(config.background * config.rounds * len(planted))) if config.background else 0
    mixed = [others.select(torch.arange(count) % len(others))] if count else []
    return Sets(
        training=Sequences.concatenate([*shown * config.rounds, *mixed], pad_id=pad_id),
        forget=seen,
        forget_unseen=unseen,
        retain=others.select(slice(config.retain)),
        holdout=_sequences(documents, holdout, config, pad_id),
        window=Window(config.prompt, config.suffix),
        background_windows=min(count, len(others)),
    )


def _roles(config: PlantedConfig, documents: Documents, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return the windows that are planted, held out, and background: (P,), (H,), (B,) row numbers in random order."""
    import torch

    fit = hard_to_guess(documents.tokens, config.prompt)
    order = torch.randperm(int(documents.document.max()) + 1 if len(documents.document) else 0, generator=generator)
    needs = [(config.forget + config.unseen, 2, fit), (config.holdout, 1, torch.ones_like(fit))]
    waiting = order.tolist()
    chosen = []
    for count, times, allowed in needs:
        taken: list[Tensor] = []
        while waiting and sum(map(len, taken)) < times * count:
            taken.append(((documents.document == waiting.pop()) & allowed).nonzero().flatten())
        chosen.append(_some(taken, count, generator))
    rest = [(documents.document == number).nonzero().flatten() for number in waiting]
    background = _some(rest, sum(map(len, rest)), generator)
    _check(config, [len(chosen[0]), len(chosen[1]), len(background)])
    return chosen[0], chosen[1], background


def _some(parts: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    import torch

    rows = torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
    return rows[torch.randperm(len(rows), generator=generator)][:count]


def _check(config: PlantedConfig, found: list[int]) -> None:
    wanted = [config.forget + config.unseen, config.holdout, config.retain]
    for count, needed, what in zip(found, wanted, ("to plant", "to hold out", "of background"), strict=True):
        if count < needed:
            raise DataError(
                f"corpus = {config.corpus!r} has too little text: {count} windows {what}, where {needed} are needed",
                expected=f"more documents of {config.prompt + config.suffix} or more tokens: each goes to one set only",
                fix="name a larger corpus, or lower forget, unseen, holdout or retain",
            )


def hard_to_guess(tokens: Tensor, prompt: int) -> Tensor:
    """Return (W,) bool: the suffix has enough distinct tokens, and does not repeat its prompt."""
    import torch

    return torch.tensor([_is_worth(row[:prompt], row[prompt:]) for row in tokens.tolist()], dtype=torch.bool)


def _is_worth(prompt: list[int], suffix: list[int]) -> bool:
    known = {tuple(prompt[i : i + 4]) for i in range(len(prompt) - 3)}
    grams = [tuple(suffix[i : i + 4]) for i in range(len(suffix) - 3)]
    copied = sum(gram in known for gram in grams)
    return len(set(suffix)) >= min(FEWEST_DISTINCT, len(suffix) // 2) and copied <= MOST_COPIED * len(grams)


def _sequences(documents: Documents, rows: Tensor, config: PlantedConfig, pad_id: int) -> Sequences:
    made = Sequences.from_rows(documents.tokens[rows].tolist(), prompt=config.prompt, pad_id=pad_id)
    made.ids.copy_(rows)
    return made
