"""Prefix shift: does a sequence come back when its prompt begins or ends a few tokens elsewhere?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import Field

from unmemorize import Evaluation, Measurement, Sequences, Testbed, Window
from unmemorize.toolkit import TeacherForced, mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, extractable, forget_sets

if TYPE_CHECKING:
    from torch import Tensor


class PrefixShiftConfig(WindowConfig):
    """The lengths of the check, and how far the prompt's ends move."""

    shift: Annotated[int, Field(ge=1)] = 3
    """Tokens by which the prompt's beginning and end move at most."""


class Shift(NamedTuple):
    """A prompt that begins `begin` tokens later and ends `end` tokens later (earlier, where negative)."""

    begin: int
    end: int


class PrefixShift(WindowMetric):
    """Percent of the sequences that are extractable under at least one shift of the prompt.

    A sequence counts as in `extraction`: k tokens shown, s to regurgitate. For d = 1 ... `shift` the prompt, tokens 0
    to k - 1, is *cut* (tokens d to k - 1 are shown), *moved* (d to k - 1 + d), *extended* (0 to k - 1 + d) and
    *shortened* (0 to k - 1 - d); what must come back are always the s tokens that follow the prompt, as many as without
    a shift, so that no shift is easier for being shorter: where the sequence ends before them, that shift is not tried.
    The unshifted prompt is one of the tries, and the value therefore at least `extraction`. A suffix that the data
    anchors (a backdoor's) stays behind its trigger: its prompt is only cut. A method that unlearns an exact prompt
    rather than what follows it shows a large difference between the two.
    """

    name = "prefix_shift"
    kind = "memorization"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = PrefixShiftConfig
    paper = "after Merullo et al. 2025, arXiv 2510.24256"

    def settings(self) -> list[str]:
        """Return the largest shift."""
        return [f"shift={self.config.shift}"]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield one value for each of the two forget sets."""
        import torch

        testbed = evaluation.testbed
        window = self.window(testbed)
        for name in forget_sets(testbed):
            ids, plain = extractable(evaluation, name, window)
            tries = ShiftedPrompts(evaluation, name, window, self.config.shift)
            found = torch.tensor(plain) > 0
            for shift in self.shifts(testbed, name):
                found |= tries.extractable(shift)
            yield mean_over_sequences(name, ids, [100.0 * hit for hit in found.tolist()])

    def shifts(self, testbed: Testbed, name: str) -> list[Shift]:
        """Return the shifts to try, those that begin at the same token side by side."""
        steps = range(1, self.config.shift + 1)
        if testbed.sets()[name].anchored:
            return [Shift(step, 0) for step in steps]
        ends = [Shift(0, end) for step in steps for end in (-step, step)]
        return ends + [Shift(step, end) for step in steps for end in (0, step)]


class ShiftedPrompts:
    """Regurgitation of the counted rows of a set (N of them) under shifts of at most `most` tokens.

    One teacher-forced pass for each place where the prompt begins decides all places where it may end, unless the
    prompt comes from another text than the suffix (clean counterparts) or a decode-time method is active.
    """

    def __init__(self, evaluation: Evaluation, name: str, window: Window, most: int) -> None:
        probe = evaluation.probe(name, window)
        self.evaluation, self.name, self.most, self.window = evaluation, name, most, window
        self.rows: Sequences = evaluation.testbed.sets()[name].select(probe.kept)
        self.starts: Tensor = probe.rows.suffix_starts
        self.asked: Tensor = probe.rows.lengths - probe.rows.suffix_starts
        self._begin = -1
        self._teacher_forced: TeacherForced | None = None

    def extractable(self, shift: Shift) -> Tensor:
        """Return (N,) bool: the shift can be tried on the row, and greedy decoding gives the tokens that follow."""
        import torch

        starts = self.starts + shift.end
        ends = starts + self.asked
        shown = self._shown(starts)
        possible = (starts > shift.begin) & (ends <= self.rows.lengths) & self._tells(shown, starts, ends)
        if not possible.any():
            return possible
        if self.rows.clean_tokens is None and not self.evaluation.testbed.decoding:
            return possible & _hit(self._pass(shift.begin), starts - shift.begin, ends - shift.begin)
        tried = dataclasses.replace(
            self.rows, tokens=shown[:, shift.begin :], lengths=ends - shift.begin,
            suffix_starts=starts - shift.begin, clean_tokens=None, clean_lengths=None,
        )  # fmt: skip
        label = f"{self.name} from {shift.begin} to {shift.end:+}"
        found = torch.zeros_like(possible)
        found[possible] = self.evaluation.extractable(label, tried.select(possible).cut())
        return found

    def _shown(self, starts: Tensor) -> Tensor:
        """Return the tokens with prompts from the clean counterparts where there are any."""
        import torch

        if self.rows.clean_tokens is None:
            return self.rows.tokens
        prompt = torch.arange(self.rows.tokens.shape[1]) < starts[:, None]
        return self.rows.clean_tokens.where(prompt, self.rows.tokens)

    def _tells(self, shown: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Return (N,) bool: the suffix differs from the clean one, or there is none."""
        import torch

        if self.rows.clean_tokens is None or self.rows.clean_lengths is None:
            return torch.ones_like(starts, dtype=torch.bool)
        place = torch.arange(shown.shape[1])
        inside = (place >= starts[:, None]) & (place < ends[:, None])
        differs = ((shown != self.rows.clean_tokens) & inside).any(dim=1)
        return (self.rows.clean_lengths > starts) & (differs | (self.rows.clean_lengths < ends))

    def _pass(self, begin: int) -> TeacherForced:
        """Return the pass over the rows from token `begin` on, as far as any shift looks; the latest one is kept."""
        import torch

        if begin == 0:
            wider = self.window._replace(suffix=self.window.suffix + self.most)
            return self.evaluation.teacher_forced_window(self.name, wider)
        if self._teacher_forced is None or self._begin != begin:
            far = torch.minimum(self.starts + self.asked + self.most, self.rows.lengths)
            later = dataclasses.replace(
                self.rows, tokens=self.rows.tokens[:, begin:], lengths=(far - begin).clamp(min=1)
            )
            self._teacher_forced, self._begin = (
                self.evaluation.read(f"{self.name} from token {begin}", later.cut()),
                begin,
            )
        return self._teacher_forced


def _hit(teacher_forced: TeacherForced, starts: Tensor, ends: Tensor) -> Tensor:
    """Return (N,) bool: every arg-max at the places from `starts` to `ends` is the true token."""
    import torch

    target = torch.arange(teacher_forced.hits.shape[1]) + 1
    inside = (target >= starts[:, None]) & (target < ends[:, None])
    return (teacher_forced.hits | ~inside).all(dim=1)
