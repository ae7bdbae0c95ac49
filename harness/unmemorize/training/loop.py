"""The one training loop: regularizers, fine-tuning and providers that train all go through it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from unmemorize.contracts.context import Context, derived_seed
from unmemorize.errors import DataError, DivergedError
from unmemorize.training.batching import epoch_batches, steps_per_epoch
from unmemorize.training.checkpoint import Checkpoint, Position
from unmemorize.training.losses import token_losses
from unmemorize.training.master import MasterWeights
from unmemorize.training.optimizer import build_optimizer, learning_rate_at
from unmemorize.training.regularizer import TrainingObjective, TrainingStep

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.layout import MLP
    from unmemorize.contracts.recipe import TrainingRecipe
    from unmemorize.contracts.testbed import Sequences

_CHECK_EVERY = 50
"""Steps between looks at the losses: looking at each one would make the host wait for an accelerator."""


class TrainingReport(NamedTuple):
    """What a training run did."""

    steps: int
    """Optimizer steps."""
    epochs: int
    """Passes over the data, the last one possibly cut short by `max_steps`."""
    tokens: int
    """Real tokens seen."""
    final_loss: float
    """Mean of the objective over the steps of the last epoch."""
    seconds: float
    """Seconds of training, without the time spent on measuring."""
    stopped_early: bool
    """Whether `stop_when` ended it."""


def train(  # noqa: PLR0913  what a training run can be told is given by keyword
    model: PreTrainedModel,
    sequences: Sequences,
    recipe: TrainingRecipe,
    context: Context,
    *,
    regularizer: TrainingObjective | None = None,
    mlps: tuple[MLP, ...] = (),
    on_epoch: Callable[[int], None] | None = None,
    stop_when: Callable[[int], bool] | None = None,
    stop_every: int | None = None,
    checkpoint: Checkpoint | None = None,
    description: str = "training",
) -> TrainingReport:
    """Train `model` in place on the rows of `sequences` and leave it in eval mode.

    All randomness (the order of the rows, dropout) comes from the context's seed, step by step, so that a run
    that goes on from a checkpoint ends, on the CPU, with the same bits as one that was never interrupted.

    Memory, per trained parameter: a gradient, the optimizer's state (8 bytes for Adam in float32), and for one held in
    16 bits a float32 copy that the optimizer steps on (`MasterWeights`); beside that the activations of one batch.

    Args:
        model: a causal language model; its parameters that take gradients are trained.
        sequences: N right-padded rows; a row that stands twice is seen twice per epoch (`copies` plays no part).
        recipe: optimizer, schedule, batch size, length.
        context: seed, progress, deadline.
        regularizer: the objective, which also wraps the run; not together with a checkpoint, which does not know
            its state.
        mlps: the MLPs of `model`, for the regularizer.
        on_epoch: called after each epoch with the number of epochs done, in eval mode.
        stop_when: asked after each epoch, in eval mode, with the number of epochs done; training ends where it answers
            True.
        stop_every: ask `stop_when` after every so many steps as well, with the number of whole epochs done.
        checkpoint: where the run is kept so that it can go on after an interruption; it is still there at the end.
        description: the words beside the progress bar.

    Raises:
        DataError: there are no rows.
        ConfigError: no such optimizer.
        DivergedError: the objective is not finite.
        DeadlineExceeded: the context's time is used up.
    """
    import torch

    if not len(sequences):
        raise DataError(
            f"{description}: there is nothing to train on",
            expected="at least one sequence",
            fix="check the sizes of the testbed's sets",
        )
    if regularizer is not None and checkpoint is not None:
        raise ValueError("a checkpoint does not keep the state of a regularizer: give one of the two")
    run = _Run(model, sequences, recipe, context, description, regularizer, stop_every)
    with ExitStack() as stack:
        stack.callback(run.rest)
        stack.enter_context(run.weights.collecting())
        stack.enter_context(torch.random.fork_rng(devices=_devices(model), device_type=_device_type(model)))
        if regularizer is None:
            stopped = run.go(on_epoch, stop_when, checkpoint)
        else:
            with regularizer.attach(model, mlps, context.generator("regularizer", regularizer.name)):
                stopped = run.go(on_epoch, stop_when, None)
    if regularizer is not None:
        with torch.no_grad():
            regularizer.finish(model, mlps)
    return run.report(stopped_early=stopped)


class _Batch(NamedTuple):
    step: int
    epoch: int
    rows: Tensor
    ends_epoch: bool


@dataclass(slots=True)
class _Run:
    """One training run: where it is, and the parts it is made of."""

    model: PreTrainedModel
    sequences: Sequences
    recipe: TrainingRecipe
    context: Context
    description: str
    regularizer: TrainingObjective | None
    stop_every: int | None = None
    per_epoch: int = field(init=False)
    total: int = field(init=False)
    weights: MasterWeights = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    position: Position = field(init=False, default=Position())
    losses: list[Tensor] = field(init=False, default_factory=list)
    """Objectives of the latest steps, not yet looked at."""

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.per_epoch = steps_per_epoch(len(self.sequences), recipe.batch_size)
        self.total = min(recipe.epochs * self.per_epoch, recipe.max_steps or recipe.epochs * self.per_epoch)
        self.weights = MasterWeights(self.model)
        self.optimizer = build_optimizer(recipe, self.weights.parameters)

    def go(
        self,
        on_epoch: Callable[[int], None] | None,
        stop_when: Callable[[int], bool] | None,
        checkpoint: Checkpoint | None,
    ) -> bool:
        """Run all steps that are left; return whether `stop_when` ended it."""
        name = self.name() if checkpoint else ""
        if checkpoint:
            self.position = checkpoint.restore(name, self.weights, self.optimizer)
        clock = _Clock(self.context, self.position.seconds)
        left = self.total - self.position.step
        stopped = False
        for batch in self.context.track(self.batches(), self.description, total=left):
            if batch.step % self.per_epoch == 0:
                self.position = self.position._replace(epoch_loss=0.0)
            self.step(batch)
            if batch.ends_epoch or len(self.losses) >= _CHECK_EVERY:
                self.look(clock)
            if batch.ends_epoch:
                stopped = self.end_epoch(batch.epoch + 1, on_epoch, stop_when)
            elif self.stop_every and (batch.step + 1) % self.stop_every == 0:
                self.look(clock)
                stopped = self.end_epoch(batch.epoch, None, stop_when)
            if checkpoint and not stopped and (batch.ends_epoch or checkpoint.due()):
                self.look(clock)
                checkpoint.save(name, self.weights, self.optimizer, self.position)
            if stopped:
                break
        return stopped

    def name(self) -> str:
        """Return what tells this run from any other: its data, its recipe, its seed, and what is trained."""
        said = [(name, tuple(value.shape), str(value.dtype)) for name, value in self.model.named_parameters()]
        shapes = hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()
        return f"{self.sequences.digest()} {self.recipe.model_dump_json()} {self.context.seed} {shapes}"

    def batches(self) -> Iterator[_Batch]:
        """Yield the batches that are left, in the order that each epoch's own generator gives."""
        lengths = self.sequences.lengths
        for epoch in range(self.position.step // self.per_epoch, -(-self.total // self.per_epoch)):
            generator = self.context.generator("training", epoch)
            order = epoch_batches(lengths, self.recipe.batch_size, self.recipe.pooled_batches, generator)
            for number, rows in enumerate(order, start=epoch * self.per_epoch):
                if self.position.step <= number < self.total:
                    last = number + 1 == self.total or (number + 1) % self.per_epoch == 0
                    yield _Batch(number, epoch, rows, last)

    def step(self, planned: _Batch) -> None:
        """Make one optimizer step."""
        import torch
        from torch.nn.utils import clip_grad_norm_

        # Seeded at every step, dropout is the same after an interruption, and no generator's state is kept.
        torch.manual_seed(derived_seed(self.context.seed, "dropout", planned.step))
        if not self.model.training:
            self.model.train()
        batch = self.sequences.select(planned.rows).cut()
        loss = self.objective(planned, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.gradient_clip is not None:
            clip_grad_norm_(self.weights.parameters, self.recipe.gradient_clip)
        rate = learning_rate_at(self.recipe, planned.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.weights.write_back()
        self.losses.append(loss.detach())
        self.position = self.position._replace(
            step=planned.step + 1, tokens=self.position.tokens + int(batch.lengths.sum())
        )

    def objective(self, planned: _Batch, batch: Sequences) -> Tensor:
        """Return the scalar to minimize on this batch."""
        if self.regularizer is None:
            return token_losses(self.model, batch).mean()
        self.regularizer.before_batch(batch)
        losses = token_losses(self.model, batch)
        seen = TrainingStep(
            self.model, batch, losses.values, losses.mask, losses.row_means(), planned.step, planned.epoch
        )
        return self.regularizer.objective(seen)

    def look(self, clock: _Clock) -> None:
        """Look at the losses of the latest steps, and bring the position's loss and seconds up to date.

        Raises:
            DivergedError: one of them is not finite.
        """
        import torch

        if self.losses:
            values = torch.stack(self.losses).double().cpu()
            finite = values.isfinite()
            if not finite.all():
                first = int((~finite).nonzero()[0])
                raise DivergedError(self.description, self.position.step - len(self.losses) + first)
            epoch_loss = self.position.epoch_loss + float(values.sum())
            self.position = self.position._replace(epoch_loss=epoch_loss)
            self.losses.clear()
        self.position = self.position._replace(seconds=clock.seconds())

    def end_epoch(
        self, done: int, on_epoch: Callable[[int], None] | None, stop_when: Callable[[int], bool] | None
    ) -> bool:
        """Let the caller look at the model after `done` epochs; return whether to stop here."""
        self.model.eval()
        if on_epoch is not None:
            on_epoch(done)
        return stop_when is not None and stop_when(done)

    def rest(self) -> None:
        """Leave the model as it is used from here on: in eval mode, without gradients."""
        self.model.eval()
        self.optimizer.zero_grad(set_to_none=True)

    def report(self, *, stopped_early: bool) -> TrainingReport:
        """Return what was done."""
        step = self.position.step
        epochs = -(-step // self.per_epoch)
        in_last_epoch = step - (epochs - 1) * self.per_epoch
        final_loss = self.position.epoch_loss / in_last_epoch
        seconds = self.position.seconds
        return TrainingReport(step, epochs, self.position.tokens, final_loss, seconds, stopped_early)


class _Clock:
    """Seconds of training: those before an interruption count, those spent on measuring do not."""

    def __init__(self, context: Context, before: float) -> None:
        self._context, self._before = context, before
        self._begin, self._paused = time.perf_counter(), context.report.paused

    def seconds(self) -> float:
        """Return the seconds so far, the device's work included."""
        self._context.synchronize()
        spent = time.perf_counter() - self._begin - (self._context.report.paused - self._paused)
        return self._before + spent


def _device_type(model: PreTrainedModel) -> str:
    kind = model.device.type
    return "cuda" if kind == "cpu" else kind


def _devices(model: PreTrainedModel) -> list[torch.device]:
    placed = {parameter.device for parameter in model.parameters()}
    return [device for device in placed if device.type != "cpu"]
