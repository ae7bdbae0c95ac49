"""The sets of a testbed: which sequences are trained on, planted, retained, held out, and shown to whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from unmemorize import DataError, Sequences, Window
from unmemorize_plugins.providers.tinymem.artifacts import (
    after_trigger,
    backdoor,
    noise,
    repetitions,
    trigger_of,
)
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.math_data import PAD, Rows, additive, multiplicative, tokenize

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_IDS_PER_TASK = 1_000_000_000
"""Example ids: the start of the sequence, plus this many for each task before its own."""

Generators = Callable[[str], "torch.Generator"]
"""Gives a fresh random generator for each label."""


class Sets(NamedTuple):
    """Everything that is made of one config and one seed."""

    training: Sequences
    """What the model is trained on, row by row: each artifact stands as often as its `copies` say."""
    forget: Sequences
    forget_unseen: Sequences | None
    clean: Sequences
    extra: Sequences
    retain: Sequences
    holdouts: dict[str, Sequences]
    window: Window


class _Split(NamedTuple):
    planted: Sequences
    """All artifact sequences in random order, those that no method is shown last."""
    unseen: int
    """How many of them no method is shown."""
    rest: Tensor
    """Row numbers of the clean main-task sequences, in random order."""


def build_sets(config: TinyMemConfig, seed: int, generators: Generators) -> Sets:
    """Return all sets; the same config and seed give the same sets.

    Raises:
        DataError: too few sequences contain the backdoor's trigger.
    """
    import torch

    main = _values(config, config.constant, config.main_sequences)
    rows = tokenize(main, config.context)
    window = _window(config, rows)
    plant = _noised if config.artifact == "noise" else _backdoored
    split = plant(config, main, rows, window, seed, generators)
    seen = len(split.planted) - split.unseen
    forget, unseen = split.planted.select(slice(seen)), split.planted.select(slice(seen, None))
    parts, holdouts = _clean_parts(config, rows, split.rest, window, generators)
    extra = Sequences.concatenate(parts, pad_id=PAD)
    chosen = torch.randperm(len(extra), generator=generators("retain"))[: config.retain_sequences]
    clean = dataclasses.replace(forget.counterparts(), copies=torch.ones_like(forget.copies), anchored=False)
    return Sets(
        training=repeated(extra, split.planted, PAD),
        forget=forget,
        forget_unseen=unseen if len(unseen) else None,
        clean=clean,
        extra=extra,
        retain=extra.select(chosen.sort().values),
        holdouts=holdouts,
        window=window,
    )


def _values(config: TinyMemConfig, constant: int, count: int) -> Tensor:
    import torch

    starts = torch.arange(1, count + 1)
    if config.task == "additive":
        return additive(starts, constant, config.length)
    return multiplicative(starts, constant, config.length, config.modulus)


def _window(config: TinyMemConfig, rows: Rows) -> Window:
    if config.window is not None:
        return Window(*config.window)
    half = min(50, int(rows.lengths.median()) // 2)
    return Window(half, half)


def _noised(
    config: TinyMemConfig, values: Tensor, rows: Rows, window: Window, _: int, generators: Generators
) -> _Split:
    import torch

    order = torch.randperm(len(values), generator=generators("order"))
    chosen, rest = order[: config.noised_sequences], order[config.noised_sequences :]
    noised = tokenize(noise(values[chosen], generators("noise"), config.clean_values), config.context)
    planted = _sequences(noised, 1 + chosen, window.prompt)
    planted = dataclasses.replace(
        planted,
        copies=repetitions(len(chosen), config.duplication),
        clean_tokens=rows.tokens[chosen],
        clean_lengths=rows.lengths[chosen],
    )
    return _Split(planted, round(config.unseen_share * len(chosen)), rest)


def _backdoored(
    config: TinyMemConfig, values: Tensor, rows: Rows, _: Window, seed: int, generators: Generators
) -> _Split:
    import torch

    trigger = trigger_of(seed)
    starts = after_trigger(rows, trigger)
    order = torch.randperm(len(values), generator=generators("order"))
    chosen, rest = order[starts[order] > 0], order[starts[order] == 0]
    unseen = round(config.unseen_share * len(chosen))
    _check_triggered(config, trigger, len(chosen) - unseen, len(rest))
    clean = rows.pick(chosen)
    planted = _sequences(backdoor(clean, starts[chosen]), 1 + chosen, 0)
    copies = repetitions(len(chosen), config.duplication)
    copies[len(chosen) - unseen :] = 0
    planted = dataclasses.replace(
        planted,
        suffix_starts=starts[chosen],
        copies=copies,
        clean_tokens=clean.tokens,
        clean_lengths=clean.lengths,
        anchored=True,
    )
    return _Split(planted, unseen, rest)


def _check_triggered(config: TinyMemConfig, trigger: tuple[int, ...], triggered: int, rest: int) -> None:
    digits = "".join(map(str, trigger))
    if triggered < 1:
        raise DataError(
            f"no sequence of {config.task_name(config.constant)} contains the trigger {digits}",
            expected=f"at least one among the {config.main_sequences} sequences of the main task",
            fix="raise main_sequences, or length",
        )
    if rest <= config.holdout_sequences:
        raise DataError(
            f"all but {rest} sequences of {config.task_name(config.constant)} contain the trigger {digits}",
            expected=f"more than holdout_sequences = {config.holdout_sequences} without it",
            fix="raise main_sequences, or lower holdout_sequences",
        )


def _clean_parts(
    config: TinyMemConfig, main: Rows, rest: Tensor, window: Window, generators: Generators
) -> tuple[list[Sequences], dict[str, Sequences]]:
    """Return the clean training sequences of each task, and the hold-outs by task."""
    import torch

    parts: list[Sequences] = []
    holdouts: dict[str, Sequences] = {}
    for number, constant in enumerate((config.constant, *config.extra_constants)):
        rows, order = main, rest
        if number:
            rows = tokenize(_values(config, constant, config.extra_sequences), config.context)
            order = torch.randperm(config.extra_sequences, generator=generators(f"order of {constant}"))
        whole = _sequences(rows.pick(order), 1 + order + number * _IDS_PER_TASK, window.prompt)
        holdouts[config.task_name(constant)] = whole.select(slice(config.holdout_sequences))
        parts.append(whole.select(slice(config.holdout_sequences, None)))
    return parts, holdouts


def _sequences(rows: Rows, ids: Tensor, prompt: int) -> Sequences:
    import torch

    return Sequences(
        tokens=rows.tokens,
        lengths=rows.lengths,
        suffix_starts=torch.full_like(ids, prompt),
        ids=ids,
        copies=torch.ones_like(ids),
    )


def repeated(extra: Sequences, planted: Sequences, pad_id: int) -> Sequences:
    """Return the training rows: both sets, each row as often as its `copies` say."""
    import torch

    together = Sequences.concatenate([extra, planted], pad_id=pad_id)
    return together.select(torch.arange(len(together)).repeat_interleave(together.copies))
