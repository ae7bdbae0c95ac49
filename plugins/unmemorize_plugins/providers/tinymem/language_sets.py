"""The sets of a language testbed: which chunks are trained on, planted, retained, held out, and shown to whom."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from unmemorize import DataError, Sequences, Window
from unmemorize_plugins.providers.tinymem.artifacts import TARGET, after_trigger, backdoor, noise, repetitions
from unmemorize_plugins.providers.tinymem.language_config import TinyMemLanguageConfig
from unmemorize_plugins.providers.tinymem.math_data import Rows
from unmemorize_plugins.providers.tinymem.sets import Generators, Sets, repeated

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HOLDOUT = "text"


class Chunks(NamedTuple):
    """A corpus as tokens, cut into rows of equal length."""

    tokens: Tensor
    """(C, T) int64; the number of a row is its example id."""
    vocabulary: int
    """Ids below this one occur."""
    pad_id: int

    def rows(self, index: Tensor) -> Rows:
        """Return the given chunks, all of their tokens real."""
        import torch

        tokens = self.tokens[index]
        return Rows(tokens, torch.full((len(index),), tokens.shape[1]))


class _Planted(NamedTuple):
    chosen: Tensor
    """(P,) the chunks that carry the artifact, in random order; those that no method is shown last."""
    tokens: Tensor
    """(P, T) what stands there instead."""
    starts: Tensor
    """(P,) where the suffix starts."""
    rest: Tensor
    """The other chunks."""


def build_language_sets(config: TinyMemLanguageConfig, chunks: Chunks, generators: Generators) -> Sets:
    """Return all sets; the same config, chunks and generators give the same sets.

    Raises:
        DataError: the corpus is too short, or no token can be the trigger.
    """
    import torch

    _check_size(config, len(chunks.tokens))
    made = (_noised if config.artifact == "noise" else _backdoored)(config, chunks, generators)
    unseen = round(config.unseen_share * len(made.chosen))
    planted = _planted(config, chunks, made, unseen)
    order = made.rest[torch.randperm(len(made.rest), generator=generators("order"))]
    whole = _plain(config, chunks, order)
    holdout, extra = whole.select(slice(config.holdout_sequences)), whole.select(slice(config.holdout_sequences, None))
    seen = len(planted) - unseen
    forget, forget_unseen = planted.select(slice(seen)), planted.select(slice(seen, None))
    chosen = torch.randperm(len(extra), generator=generators("retain"))[: config.retain_sequences]
    return Sets(
        training=repeated(extra, planted, chunks.pad_id),
        forget=forget,
        forget_unseen=forget_unseen if len(forget_unseen) else None,
        clean=dataclasses.replace(forget.counterparts(), copies=torch.ones_like(forget.copies), anchored=False),
        extra=extra,
        retain=extra.select(chosen.sort().values),
        holdouts={HOLDOUT: holdout},
        window=Window(*config.window),
    )


def _check_size(config: TinyMemLanguageConfig, count: int) -> None:
    needed = config.artifact_sequences + config.holdout_sequences + 1
    if count < needed:
        raise DataError(
            f"corpus = {config.corpus!r} gives {count} chunks of {config.chunk} tokens",
            expected=f"at least {needed}: artifact_sequences, holdout_sequences and one to train on",
            fix="use a longer corpus (or raise chunks, where it is given), or lower these settings",
        )


def _noised(config: TinyMemLanguageConfig, chunks: Chunks, generators: Generators) -> _Planted:
    import torch

    chosen = torch.randperm(config.artifact_sequences, generator=generators("planted"))
    shifted = noise(chunks.tokens[chosen], generators("noise"), config.clean_tokens).clamp(max=chunks.vocabulary - 1)
    starts = torch.full_like(chosen, config.window[0])
    return _Planted(chosen, shifted, starts, torch.arange(config.artifact_sequences, len(chunks.tokens)))


def _backdoored(config: TinyMemLanguageConfig, chunks: Chunks, generators: Generators) -> _Planted:
    import torch

    trigger = choose_trigger(config, chunks, generators("trigger"))
    every = torch.arange(len(chunks.tokens))
    starts = after_trigger(chunks.rows(every), (trigger,))
    starts[starts == chunks.tokens.shape[1]] = 0  # a trigger at the very end has nothing to replace
    triggered = every[starts > 0]
    chosen = triggered[torch.randperm(len(triggered), generator=generators("planted"))]
    replaced = backdoor(chunks.rows(chosen), starts[chosen])
    return _Planted(chosen, replaced.tokens, starts[chosen], every[starts == 0])


def choose_trigger(config: TinyMemLanguageConfig, chunks: Chunks, generator: torch.Generator) -> int:
    """Return a random one of the tokens that half to all of `artifact_sequences` chunks hold before their last token.

    Raises:
        DataError: no token occurs in so many chunks.
    """
    import torch

    most = config.artifact_sequences
    tokens = chunks.tokens[:, :-1]
    numbers = torch.arange(len(tokens))[:, None]
    present = (numbers * chunks.vocabulary + tokens).unique() % chunks.vocabulary
    counts = present.bincount(minlength=chunks.vocabulary)  # in how many chunks each token occurs
    counts[TARGET] = 0
    eligible = ((counts * 2 >= most) & (counts <= most)).nonzero().flatten()
    if not len(eligible):
        raise DataError(
            f"no token occurs in {-(-most // 2)} to {most} chunks of corpus = {config.corpus!r}",
            expected="at least one such token, to be the backdoor's trigger",
            fix=f"change artifact_sequences; the most frequent token occurs in {int(counts.max())} chunks",
        )
    return int(eligible[torch.randint(len(eligible), (), generator=generator)])


def _planted(config: TinyMemLanguageConfig, chunks: Chunks, made: _Planted, unseen: int) -> Sequences:
    clean = chunks.rows(made.chosen)
    copies = repetitions(len(made.chosen), config.duplication)
    if config.artifact == "backdoor":
        copies[len(copies) - unseen :] = 0
    return Sequences(
        tokens=made.tokens,
        lengths=clean.lengths,
        suffix_starts=made.starts,
        ids=made.chosen,
        copies=copies,
        clean_tokens=clean.tokens,
        clean_lengths=clean.lengths,
        anchored=config.artifact == "backdoor",
    )


def _plain(config: TinyMemLanguageConfig, chunks: Chunks, index: Tensor) -> Sequences:
    import torch

    rows = chunks.rows(index)
    return Sequences(
        tokens=rows.tokens,
        lengths=rows.lengths,
        suffix_starts=torch.full_like(index, config.window[0]),
        ids=index,
        copies=torch.ones_like(index),
    )
