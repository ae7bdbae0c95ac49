"""One teacher-forced pass per set (and generation where it is asked for), shared by all metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.bits import Fingerprint, bits_of
from unmemorize.contracts.context import Context
from unmemorize.contracts.metric import Reading, Statistic
from unmemorize.contracts.testbed import Sequences, Testbed, Window
from unmemorize.evaluation.extraction import regurgitated
from unmemorize.evaluation.finite import check_finite
from unmemorize.evaluation.generation import Generated, Processor, generate
from unmemorize.evaluation.probe import Probe, build_probe
from unmemorize.models.versions import evaluation_mode

if TYPE_CHECKING:
    from torch import Tensor

LOGIT_BUDGET = 32_000_000
"""Logits held at once: 128 MB in float32."""


class TeacherForced(NamedTuple):
    """A model's teacher-forced predictions. Column t is about token t + 1. All on the CPU."""

    losses: Tensor
    """(N, T-1) float32 cross-entropy in nats, 0 where there is no real target."""
    predicted: Tensor
    """(N, T-1) int64, the arg-max of the logits (after the processors of a decode-time method)."""
    targets: Tensor
    """(N, T-1) int64, the true next token."""
    real: Tensor
    """(N, T-1) bool, True where the target is a real token."""
    leads: Tensor
    """(N, T-1) float32, how far the target's logit is above every other one: above 0 where it is the arg-max."""
    statistics: Mapping[Statistic, Tensor] = MappingProxyType({})
    """(N, T-1) float32 for each statistic that was asked for, 0 where there is no real target."""

    @property
    def hits(self) -> Tensor:
        """(N, T-1) bool: the target is real and is the arg-max."""
        return (self.predicted == self.targets) & self.real

    def part(self, kept: Tensor, rows: Sequences) -> TeacherForced:
        """Return what was said about `rows`, the beginnings of the rows `kept` of what was read."""
        real = rows.real()[:, 1:]
        width = real.shape[1]
        return TeacherForced(
            losses=_only(self.losses[kept, :width], real),
            predicted=self.predicted[kept, :width],
            targets=rows.tokens[:, 1:],
            real=real,
            leads=_only(self.leads[kept, :width], real),
            statistics={name: _only(value[kept, :width], real) for name, value in self.statistics.items()},
        )


class ExtractionCheck(NamedTuple):
    """What came of an extraction check. N counted sequences."""

    ids: Tensor
    """(N,) int64."""
    extractable: Tensor
    """(N,) bool: greedy decoding gives exactly the suffix."""
    recovered: Tensor | None
    """(N,) bool: greedy decoding gives exactly the clean suffix."""


class Evaluation:
    """The passes over one testbed, each made when first asked for and then kept.

    Args:
        testbed: what is evaluated; its model is not changed.
        context: shows progress, and gives random generators to metrics that draw.
    """

    def __init__(self, testbed: Testbed, context: Context | None = None) -> None:
        self.testbed = testbed
        self.context = context or Context()
        self._passes: dict[str, TeacherForced] = {}
        self._generations: dict[tuple[str, Window, bool], Generated] = {}
        self._expected: set[Reading] = set()
        self._bits: dict[object, list[Fingerprint]] = {}
        """Of every pass and continuation, when it was made."""

    def sequences(self, name: str) -> Sequences | None:
        """Return the set called `name` (`forget`, `forget_unseen`, `retain`, `holdout:NAME`), if it is there."""
        return self.testbed.sets().get(name)

    def holdouts(self) -> list[str]:
        """Return the names of the hold-out sets, as `sequences` takes them."""
        return [f"holdout:{name}" for name in self.testbed.holdouts]

    def intact(self) -> bool:
        """Whether everything that is kept for all metrics is bit by bit what it was when it was made."""
        made: list[tuple[object, Any]] = [*self._passes.items(), *self._generations.items()]
        return all(bits_of(kept) == self._bits[key] for key, kept in made)

    def expect(self, readings: Iterable[Reading]) -> None:
        """Take note of passes that will be asked for, so that one pass can serve several of them."""
        self._expected.update(readings)

    def teacher_forced(self, name: str, *statistics: Statistic) -> TeacherForced:
        """Return the teacher-forced pass over the real tokens of the set called `name`.

        Args:
            name: the set.
            statistics: what to keep of the logits beside the losses and the arg-max. Announced with `expect`, they
                come out of the one pass; otherwise out of a further one.
        """
        sequences = self.testbed.sets()[name]
        windows = sequences.clean_tokens is None  # what is read of a window is then the beginning of a sequence
        return self._pass(name, sequences.cut, {*statistics, *self._announced(name, None, windows=windows)})

    def teacher_forced_padded(self, name: str) -> TeacherForced:
        """Return the pass in which padding is input and counted like any other token."""

        import torch

        def whole() -> Sequences:
            sequences = self.testbed.sets()[name]
            return dataclasses.replace(sequences, lengths=torch.full_like(sequences.lengths, sequences.tokens.shape[1]))

        return self._pass(f"{name} with padding", whole, set())

    def probe(self, name: str, window: Window) -> Probe:
        """Return the extraction check of a set: the rows that count, with their prompts and suffixes."""
        return build_probe(self.testbed.sets()[name], window)

    def teacher_forced_window(self, name: str, window: Window, *statistics: Statistic) -> TeacherForced:
        """Return the teacher-forced pass over the rows of `probe(name, window)`.

        It is cut out of the pass over the whole sequences where that one is made, or announced, or no longer.
        """
        probe = self.probe(name, window)
        wanted = {*statistics, *self._announced(name, window)}
        label = _label(name, window)
        if not _serves(self._passes.get(label), wanted) and self._is_cut_out(name, probe):
            self._passes[label] = self.teacher_forced(name, *wanted).part(probe.kept, probe.rows)
            self._bits[label] = bits_of(self._passes[label])
        return self._pass(label, lambda: probe.rows, wanted)

    def generated(self, name: str, window: Window) -> Generated:
        """Return the greedy continuations of the prompts of an extraction check, made once for all metrics.

        Where no decode-time method is active, rows that the teacher-forced pass finds regurgitated are not decoded:
        their continuation is their suffix.
        """
        decoded = self._generations.get((name, window, True))
        return decoded or self._generated(name, window, everything=bool(self.testbed.decoding))

    def extraction(self, name: str, window: Window, *, generate: bool = False) -> ExtractionCheck:
        """Check which sequences of a set are extractable, (n, k) = (prompt + suffix, prompt).

        A sequence counts if its prompt is whole and its suffix is not empty; where it has a clean counterpart, only if
        the two suffixes differ. Greedy decoding gives the suffix if and only if, under teacher forcing on the suffix,
        every arg-max is the true token, so that one pass decides; `generate=True` really decodes.

        Source: Carlini et al. 2023; Sakarvadia et al. 2025, definition of (n, k) memorization.
        """
        probe = self.probe(name, window)
        check = self._decoded if generate else self._all_hit
        return ExtractionCheck(
            ids=probe.rows.ids,
            extractable=check(name, window, probe.rows, clean=False),
            recovered=None if probe.clean is None else check(name, window, probe.clean, clean=True),
        )

    def read(self, label: str, rows: Sequences) -> TeacherForced:
        """Return the teacher-forced pass over rows that are no set of the testbed. It is not kept."""
        return read_teacher_forced(self.testbed, rows, self.context, f"reading {label}")

    def continued(self, label: str, rows: Sequences, processors: Sequence[Processor] = ()) -> Generated:
        """Return the greedy continuation of each prompt of rows that are no set of the testbed. It is not kept.

        Args:
            label: the words beside the progress bar.
            rows: prompts and suffixes; each row is continued by as many tokens as its suffix has.
            processors: further logits processors, applied after those of a decode-time method.
        """
        import torch

        probe = Probe(rows, None, torch.arange(len(rows)))
        nothing = torch.zeros(len(rows), dtype=torch.bool)
        return generate(self.testbed, probe, self.context, label, nothing, processors)

    def extractable(self, label: str, rows: Sequences) -> Tensor:
        """Return (N,) bool: whether greedy decoding continues each prompt of `rows` with exactly the rest of it.

        It decodes where a decode-time method is active, and otherwise reads once.
        """
        if self.testbed.decoding:
            return self.continued(label, rows).matches(rows)
        return self._regurgitated(self.read(label, rows), rows)

    def _all_hit(self, name: str, window: Window, rows: Sequences, *, clean: bool) -> Tensor:
        teacher_forced = self._pass(f"{_label(name, window)} clean", lambda: rows, set()) if clean else None
        return self._regurgitated(teacher_forced or self.teacher_forced_window(name, window), rows)

    def _regurgitated(self, read: TeacherForced, rows: Sequences) -> Tensor:
        """Return (N,) bool; under a decode-time method, whose processors the pass went through, as it was read."""
        if self.testbed.decoding:
            return (read.hits | ~rows.suffix()[:, 1:]).all(dim=1)
        return regurgitated(self.testbed.model, rows, read.leads)

    def _decoded(self, name: str, window: Window, rows: Sequences, *, clean: bool) -> Tensor:
        return self._generated(name, window, everything=True).matches(rows)

    def _generated(self, name: str, window: Window, *, everything: bool) -> Generated:
        import torch

        key = (name, window, everything)
        if key not in self._generations:
            probe = self.probe(name, window)
            known = torch.zeros(len(probe.rows), dtype=torch.bool)
            if not everything:
                known = self._regurgitated(self.teacher_forced_window(name, window), probe.rows)
            self._generations[key] = generate(self.testbed, probe, self.context, _label(name, window), known)
            self._bits[key] = bits_of(self._generations[key])
        return self._generations[key]

    def _announced(self, name: str, window: Window | None, *, windows: bool = False) -> set[Statistic]:
        return {
            reading.statistic
            for reading in self._expected
            if reading.set == name and (windows or reading.window == window) and reading.statistic is not None
        }

    def _is_cut_out(self, name: str, probe: Probe) -> bool:
        if probe.clean is not None:
            return False
        announced = any(reading.set == name and reading.window is None for reading in self._expected)
        same = self.testbed.sets()[name].cut().tokens.shape[1] == probe.rows.tokens.shape[1]
        return announced or same or name in self._passes

    def _pass(self, label: str, rows: Callable[[], Sequences], statistics: set[Statistic]) -> TeacherForced:
        made = self._passes.get(label)
        if made is None or not _serves(made, statistics):
            wanted = statistics if made is None else {*statistics, *made.statistics}
            made = read_teacher_forced(self.testbed, rows(), self.context, f"reading {label}", *wanted)
            self._passes[label], self._bits[label] = made, bits_of(made)
        return made


def _label(name: str, window: Window) -> str:
    return f"{name} {window.prompt}+{window.suffix}"


def _serves(made: TeacherForced | None, statistics: set[Statistic]) -> bool:
    return made is not None and statistics <= made.statistics.keys()


def read_teacher_forced(
    testbed: Testbed, rows: Sequences, context: Context, description: str, *statistics: Statistic
) -> TeacherForced:
    """Run one pass over `rows` and keep a few numbers per token.

    Memory: the logits of one batch (bounded by `LOGIT_BUDGET`) plus 21 bytes per token, and 4 for each statistic.
    """
    import torch

    with torch.no_grad():
        width = max(1, rows.tokens.shape[1] - 1)
        losses = torch.zeros(len(rows), width)
        predicted = torch.zeros(len(rows), width, dtype=torch.int64)
        leads = torch.zeros(len(rows), width)
        kept = {statistic: torch.zeros(len(rows), width) for statistic in statistics}
        start = 0
        with evaluation_mode(testbed.model):
            for batch in context.track(list(rows.batches(_batch_size(testbed, width))), description):
                span = slice(start, start := start + len(batch))
                read = _read(testbed, batch, statistics)
                columns = read.losses.shape[1]
                losses[span, :columns] = read.losses
                predicted[span, :columns] = read.predicted
                leads[span, :columns] = read.leads
                for statistic, values in read.statistics.items():
                    kept[statistic][span, :columns] = values
        real = rows.real()[:, 1:]
        return TeacherForced(
            losses=_only(losses, real),
            predicted=predicted,
            targets=rows.tokens[:, 1:],
            real=real,
            leads=_only(leads, real),
            statistics={statistic: _only(values, real) for statistic, values in kept.items()},
        )


def _only(values: Tensor, real: Tensor) -> Tensor:
    """Return `values` with 0 where there is no real target: a product would make NaN of an infinite loss."""
    return values.where(real, 0.0)


class _Read(NamedTuple):
    losses: Tensor
    predicted: Tensor
    leads: Tensor
    statistics: dict[Statistic, Tensor]


def _read(testbed: Testbed, batch: Sequences, statistics: Iterable[Statistic] = ()) -> _Read:
    import torch

    inputs = batch.inputs().to(testbed.device)
    counted = bool((inputs == testbed.pad_id).any())  # padding that is read like any token: say that it is meant
    mask = torch.ones_like(inputs) if counted else None
    logits = testbed.model(input_ids=inputs, attention_mask=mask, use_cache=False).logits[:, :-1]
    for position in range(logits.shape[1] if testbed.decoding else 0):
        for processor in testbed.decoding:
            logits[:, position] = processor(inputs[:, : position + 1], logits[:, position])
    targets = inputs[:, 1:].to(logits.device)
    logits = logits.float()
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1)
    normalizers = logits.logsumexp(-1)
    real = batch.real()[:, 1:].to(logits.device)
    check_finite(normalizers.where(real, 0.0), testbed.model, f"{len(batch)} rows of {inputs.shape[1]} tokens")
    losses, predicted = (normalizers - chosen).cpu(), logits.argmax(-1).cpu()
    found = {statistic: _in_pieces(statistic, logits, targets) for statistic in statistics}
    others = logits.scatter_(-1, targets[..., None], -torch.inf).amax(-1)  # the last use of the logits: in place
    return _Read(losses, predicted, (chosen - others).cpu(), found)


def _in_pieces(statistic: Statistic, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the statistic of every position, a few at a time: it may need several copies of what it is given."""
    import torch

    size = max(1, LOGIT_BUDGET // 16 // logits.shape[-1])
    pieces = zip(logits.flatten(0, 1).split(size), targets.flatten().split(size), strict=True)
    values = [statistic(some, wanted).float().cpu() for some, wanted in pieces]
    return torch.cat(values).view(targets.shape)


def _batch_size(testbed: Testbed, width: int) -> int:
    embedding: Any = testbed.model.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    return max(1, min(256, LOGIT_BUDGET // (width * vocabulary)))
