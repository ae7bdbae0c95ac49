"""Zero-out (Chang et al. 2024, section 3.3): remove the neurons that raise the loss most.

attribution_n = L(M with a_n = 0) - L(M),   L = mean over the sequences of M of their mean token cross-entropy
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from unmemorize import Context, Cost, NeuronConfig, NeuronUnlearning, Sequences, Testbed
from unmemorize.toolkit import Replay, Sizes, Span, gate_cost, gate_gradients, outgoing_rows, recording_cost

if TYPE_CHECKING:
    from torch import Tensor


class ZeroOutConfig(NeuronConfig):
    """Grid of Sakarvadia et al. 2025: ratio in {0.001, 0.01, 0.05}."""

    estimator: Literal["exact", "taylor"] = "exact"
    """`exact` removes each neuron; `taylor` is the first-order estimate -a * dL/da, from one backward pass."""
    tokens: Literal["all", "suffix"] = "suffix"
    """Which tokens of a sequence its loss is averaged over."""
    reruns_per_batch: Annotated[int, Field(ge=1)] | None = None
    """Pairs of a neuron and a sequence that are rerun at_once; by default as many as fill 16 MiB (256 on a GPU)."""


class ZeroOut(NeuronUnlearning):
    """Score a neuron by how much the loss on the forget set rises without it.

    Cost, exact: at most layers * neurons reruns of the forget set, each of the layers above the neuron only (half the
    model on average), many at a time; a neuron that is silent all along a sequence costs nothing there. Taylor: one
    forward and backward pass.

    Memory, exact: the recording of one batch (see `Replay`), and `reruns_per_batch` * (T (2 m + 8 d) + 3 P V) numbers
    for T positions, m neurons, width d, P predicted positions and a vocabulary of V. Taylor: the activations of one
    batch.
    """

    name = "zero_out"
    Config = ZeroOutConfig
    paper = "Chang et al. 2024, arXiv 2311.09060"

    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return (neurons,) float32."""
        if self.config.estimator == "exact":
            return self.exact(testbed, context)
        context.report.flags.add("approximate-attribution")
        return -gate_gradients(testbed, testbed.forget, context, self.config)

    def exact(self, testbed: Testbed, context: Context) -> Tensor:
        """Remove each neuron alone, and see by how much the loss of each sequence rises."""
        import torch

        with torch.no_grad():
            replay = Replay(testbed, testbed.forget)
            rises = [torch.zeros(mlp.neurons, device=testbed.device) for mlp in testbed.mlps]
            for batch in context.track(list(testbed.forget.batches(self.config.batch_size)), "zero_out"):
                batch_losses = RerunLosses(replay, batch, self.config.tokens)
                for index, mlp in enumerate(testbed.mlps):
                    outgoing = outgoing_rows(mlp)
                    activations = batch_losses.recording.activations[index]
                    for rows, neurons in self.reruns(batch_losses, index):
                        context.check_deadline("zero_out")
                        change = -activations[rows, :, neurons].float()[..., None] * outgoing[neurons, None]
                        rises[index].index_add_(0, neurons.to(testbed.device), batch_losses.rises(index, rows, change))
            return torch.cat(rises).cpu() / len(testbed.forget)

    def cost(self, testbed: Testbed) -> Cost:
        """Return one rerun of the layers above for each neuron and sequence, or one pass for the estimate."""
        if self.config.estimator == "taylor":
            return gate_cost(testbed, self.config)
        plain = recording_cost(testbed, testbed.forget, self.config.batch_size)
        recorded = sum(len(batch) * batch.tokens.shape[1] for batch in testbed.forget.batches(self.config.batch_size))
        layers = Sizes.of(testbed).layers
        above = sum(mlp.neurons * (layers - 1 - mlp.layer) for mlp in testbed.mlps)
        return dataclasses.replace(
            plain,
            forward_tokens=plain.forward_tokens + recorded * above / layers,
            advice="set estimator = 'taylor': one forward and backward pass",
        )

    def reruns(self, batch_losses: RerunLosses, index: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and neurons, pair by pair, wherever removing the neuron can change something."""
        activations = batch_losses.recording.activations[index]
        active = (activations != 0) & batch_losses.real[..., None].to(activations.device)
        rows, neurons = active.any(dim=1).nonzero(as_tuple=True)
        at_once = self.config.reruns_per_batch or max(
            1, batch_losses.replay.rerun_numbers // batch_losses.numbers_per_row
        )
        yield from zip(rows.split(at_once), neurons.split(at_once), strict=True)


class RerunLosses:
    """A batch of sequences whose losses can be computed again with one MLP writing something else.

    B sequences, T positions.
    """

    def __init__(self, replay: Replay, batch: Sequences, tokens: Literal["all", "suffix"]) -> None:
        import torch

        self.replay, self.recording = replay, replay.record(batch)
        self.real = batch.real().to(replay.device)
        counted = (batch.suffix() if tokens == "suffix" else batch.real()).to(replay.device)
        self.read = counted.roll(-1, dims=1)  # (B, T): where a counted token is predicted
        self.read[:, -1] = False
        self.targets = self.recording.tokens.roll(-1, dims=1)
        self.share = 1 / self.read.sum(dim=1).clamp(min=1)  # (B,): weight of a token in the loss of its sequence
        every_row = torch.arange(len(batch), device=replay.device)
        no_change = torch.zeros_like(self.recording.outputs[-1], dtype=torch.float32)
        self.before = self.losses(len(replay.mlps) - 1, every_row, no_change)

    @property
    def numbers_per_row(self) -> int:
        """About how many numbers the rerun of one sequence holds: one block's activations, and its logits."""
        positions, width = self.recording.outputs[0].shape[1:]
        neurons, vocabulary = max(mlp.neurons for mlp in self.replay.mlps), self.replay.vocabulary
        return int(positions * (2 * neurons + 8 * width) + 3 * vocabulary * self.read.sum(dim=1).max())

    def rises(self, index: int, rows: Tensor, change: Tensor) -> Tensor:
        """Return (R,) by how much the losses of `rows` rise when MLP `index` writes (R, T, d) more than it did."""
        own = rows.to(self.replay.device)
        return self.losses(index, own, change) - self.before[own]

    def losses(self, index: int, rows: Tensor, change: Tensor) -> Tensor:
        """Return (R,) the losses of `rows` when MLP `index` writes (R, T, d) more than it did."""
        from torch.nn.functional import cross_entropy

        read = self.read[rows]
        logits = self.replay.logits(self.recording, index, Span(rows), change, read).to(read.device)
        losses = cross_entropy(logits, self.targets[rows][read], reduction="none")
        place = read.nonzero()[:, 0]
        return losses.new_zeros(len(rows)).index_add_(0, place, losses) * self.share[rows]
