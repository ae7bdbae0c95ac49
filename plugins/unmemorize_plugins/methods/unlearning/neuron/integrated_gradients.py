"""Integrated gradients, "knowledge neurons" (Dai et al. 2022, equations 1 and 2): attribute next tokens.

Where token x_{i+1} of a suffix is predicted, let only the activation at that last position i be v instead of a, and
p(v) = p(x_{i+1} | x_0 .. x_i). Then

    attribution_n(i) = a_n * 1/S * sum over k = 1..S of  d p(v) / d v_n  at v = (k / S) a

(a right Riemann sum), and attribution_n is the mean over all such positions of all sequences, with its sign.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import Context, Cost, NeuronConfig, NeuronUnlearning, Sequences, Testbed
from unmemorize.toolkit import (
    Recording,
    Replay,
    Sizes,
    Span,
    gradients_of,
    outgoing_rows,
    recording_cost,
    rerun_numbers,
    sampled_rows,
)

if TYPE_CHECKING:
    from torch import Tensor


class IntegratedGradientsConfig(NeuronConfig):
    """Grid of Sakarvadia et al. 2025: ratio in {0.001, 0.01, 0.05}; S of Dai et al. 2022."""

    steps: Annotated[int, Field(ge=1)] = 20
    """S, the points at which the integral is sampled."""
    positions: Annotated[int, Field(ge=1)] | None = None
    """Suffix tokens per sequence that are looked at, evenly spaced; by default all: the definition."""
    samples: Annotated[int, Field(ge=1)] | None = None
    """Largest number of sequences; of a larger forget set, a random part of this size. By default all."""
    rows_per_batch: Annotated[int, Field(ge=1)] | None = None
    """Sequences whose S points are rerun together; by default as many as fill 16 MiB (256 on a GPU)."""


class IntegratedGradients(NeuronUnlearning):
    """Score a neuron by the probability of the right next token that its activation is responsible for.

    The positions before i do not see the change: their keys and values, from one pass, serve all S points and layers.
    The points differ in what a layer writes, (k / S - 1) a @ down, so gradients are taken in the residual stream,
    averaged over the points, and only then taken to the neurons: (mean of dp / dwritten) @ down^T.

    Cost: one forward pass, and for each position, point and layer a forward and backward pass of *one* token through
    the layers above.

    Memory: the recording of one batch with its keys and values (see `Replay`), and `rows_per_batch` * S *
    (L (4 T d + 12 d + 3 m) + 3 V) numbers for L layers, T positions, width d, m neurons and a vocabulary of V.
    """

    name = "integrated_gradients"
    Config = IntegratedGradientsConfig
    paper = "Dai et al. 2022, arXiv 2104.08696"

    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return (neurons,) float32."""
        import torch

        forget, seen = self.sample(testbed.forget, context), 0
        replay = Replay(testbed, forget)
        sums = [torch.zeros(mlp.neurons, device=testbed.device) for mlp in testbed.mlps]
        with gradients_of(testbed.model, []):
            for batch in context.track(list(forget.batches(self.config.batch_size)), self.name):
                recording = replay.record(batch, past=True)
                for rows, position in self.predictions(batch, replay):
                    context.check_deadline(self.name)
                    seen += len(rows)
                    for index, mlp in enumerate(testbed.mlps):
                        down = outgoing_rows(mlp)
                        activations = recording.activations[index][rows.to(down.device), position].float()  # (R, m)
                        written = activations @ down
                        pull = self.mean_gradient(replay, recording, index, rows, position, written)
                        sums[index] += (activations * (pull @ down.T)).sum(dim=0).to(testbed.device)
        if self.config.positions is not None or len(forget) < len(testbed.forget):
            context.report.flags.add("approximate-attribution")
        return torch.cat(sums).cpu() / max(1, seen)

    def sample(self, forget: Sequences, context: Context) -> Sequences:
        """Return at most `samples` rows of the forget set."""
        return sampled_rows(forget, self.config.samples or len(forget), context.generator(self.name))

    def chosen(self, batch: Sequences) -> Tensor:
        """Return the (B, T) mask of the positions that are looked at: of those predicting the suffix, all or a few."""
        import torch

        predicting = batch.predicting()
        if self.config.positions is None:
            return predicting
        count = predicting.sum(dim=1, keepdim=True)
        number = predicting.cumsum(dim=1) - 1
        kept = torch.minimum(count, torch.tensor(self.config.positions)).clamp(min=1)
        # Number j of count is kept where j * kept / count passes a whole number: evenly, the first one always.
        steps = (number * kept) // count.clamp(min=1)
        return predicting & ((number == 0) | (steps > ((number - 1) * kept) // count.clamp(min=1)))

    def cost(self, testbed: Testbed) -> Cost:
        """Return the recording, and for each chosen position, layer and point one token through the layers above.

        So few tokens at a time cost at least the reading of all weights that they pass.
        """
        rows = testbed.forget.select(slice(0, self.config.samples))
        size, numbers = Sizes.of(testbed), rerun_numbers(testbed)
        positions = reruns = 0
        for batch in rows.batches(self.config.batch_size):
            for position, count in enumerate(self.chosen(batch).sum(dim=0).tolist()):
                positions += count
                reruns += size.layers * -(-count // self.rows_at_once(position, size, numbers))
        read = size.parameters / 2 + size.vocabulary * size.width  # of the layers above, and of the head
        return dataclasses.replace(
            recording_cost(testbed, rows, self.config.batch_size, past=True),
            backward_tokens=positions * self.config.steps * (size.layers - 1) / 2,
            sweeps=4 * reruns * read,
            advice="set fewer samples, positions or steps",
        )

    def mean_gradient(
        self, replay: Replay, recording: Recording, index: int, rows: Tensor, position: int, written: Tensor
    ) -> Tensor:
        """Return (R, d): the mean over k of dp / dwritten where MLP `index` writes k / S of its (R, d) `written`."""
        import torch

        steps = self.config.steps
        alphas = torch.arange(1, steps + 1, device=written.device) / steps
        change = torch.einsum("s,rd->rsd", alphas - 1, written).flatten(0, 1)[:, None].requires_grad_()
        repeated = rows.repeat_interleave(steps)
        with torch.enable_grad():
            logits = replay.logits(recording, index, Span(repeated, slice(position, position + 1)), change)
            targets = recording.tokens[repeated, position + 1, None].to(logits.device)
            probability = logits.softmax(dim=-1).gather(-1, targets).sum()
        return torch.autograd.grad(probability, change)[0].view(len(rows), steps, -1).mean(dim=1)

    def predictions(self, batch: Sequences, replay: Replay) -> Iterator[tuple[Tensor, int]]:
        """Yield every position that predicts a suffix token, with rows where it does, not too many at a time."""
        for position, predicts in enumerate(self.chosen(batch).T):
            rows = predicts.nonzero().flatten().to(replay.device)
            if len(rows):
                size = self.rows_at_once(position, replay.size, replay.rerun_numbers)
                yield from ((part, position) for part in rows.split(size))

    def rows_at_once(self, position: int, size: Sizes, numbers: int) -> int:
        """Return how many rows are rerun together: each holds S times keys and values, and what gradients need."""
        in_blocks = size.layers * (4 * position + 12) * size.width + 3 * size.neurons
        row = self.config.steps * (in_blocks + 3 * size.vocabulary)
        return self.config.rows_per_batch or max(1, numbers // row)
