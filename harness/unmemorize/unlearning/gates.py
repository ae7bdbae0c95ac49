"""Gates: a coefficient for every neuron, which gradients flow to, and unlearning that learns them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import Field

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.context import Context
from unmemorize.contracts.cost import Cost, Sizes, count_shuffled_tokens, count_tokens
from unmemorize.contracts.layout import MLP
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.edits import gradients_of
from unmemorize.errors import DivergedError
from unmemorize.training.losses import sequence_losses
from unmemorize.unlearning.activations import neuron_activations
from unmemorize.unlearning.neurons import NeuronConfig, NeuronUnlearning
from unmemorize.unlearning.objective import shuffled_rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_LOOK_EVERY = 5
"""Steps between looks at the gates: looking at each step would make the host wait for an accelerator."""
_WEAKEST = 1e-6
"""Where the penalty starts if the loss does not pull at all."""
_USUAL_GROWTH = 18.0
"""Logarithm of how much lambda usually grows until the gates have parted: 99 steps at growth 1.2."""
_TIE_BREAK = 1e-4
"""Weight of a gate's mean over all steps in its score: below any difference that means something."""
_GATED = 8
"""Bytes that a gate adds to an activation: float32 copies before and after."""


@contextmanager
def gated_activations(mlps: Sequence[MLP], gates: Tensor) -> Iterator[None]:
    """Multiply every neuron by its gate wherever the model runs inside.

    Args:
        mlps: the MLPs of the model.
        gates: (neurons,) float32, for all MLPs in their order; gradients flow to it, and are summed in float32.
    """
    each = gates.flatten().split([mlp.neurons for mlp in mlps])

    def multiply(index: int, activations: Tensor) -> Tensor:
        own = each[index].to(activations.device)
        return (activations.float() * own).to(activations.dtype)

    with neuron_activations(mlps, multiply):
        yield


class _Batching(Protocol):
    batch_size: int
    tokens: Literal["all", "suffix"]


def gate_gradients(testbed: Testbed, sequences: Sequences, context: Context, config: _Batching) -> Tensor:
    """Return dL/dg at g = 1, the sum over tokens of a * dL/da, L = mean sequence loss: (neurons,) float32.

    Cost: one forward and backward pass. Memory: the activations of one batch.
    """
    import torch

    gates = torch.ones(Sizes.of(testbed).neurons, device=testbed.device, requires_grad=True)
    with gradients_of(testbed.model, []), torch.enable_grad():
        for batch in context.track(list(sequences.batches(config.batch_size)), "gradients of gates"):
            with gated_activations(testbed.mlps, gates):
                loss = sequence_losses(testbed.model, batch, tokens=config.tokens).sum() / len(sequences)
                loss.backward()
    assert gates.grad is not None
    return gates.grad.cpu()


def gate_cost(testbed: Testbed, config: _Batching) -> Cost:
    """Return what `gate_gradients` takes on the forget set: one pass, and its gated float32 activations."""
    size, given = Sizes.of(testbed), count_tokens(testbed.forget, config.batch_size)
    return Cost(
        backward_tokens=given.tokens,
        held_tokens=given.largest,
        device_bytes=8 * size.neurons,
        block_bytes=_GATED * given.largest * size.neurons,
        advice="set a smaller batch_size",
    )


class GateConfig(NeuronConfig):
    """How gates are learned.

    The published strength of the penalty (1000, Chang et al. 2024) outweighs every loss gradient: all gates fall
    together, and position decides the selection. Here the penalty starts weak and grows until the gates have parted.
    """

    tokens: Literal["all", "suffix"] = "suffix"
    """Which tokens of a sequence its loss is averaged over."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    """Learning rate of Adam."""
    growth: Annotated[float, Field(gt=1)] = 1.2
    """Factor by which lambda grows at each step; it starts where it pulls on a gate as hard as the loss, on average."""
    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Stop as soon as this share of the gates is more closed than open; 1 - sparsity above the ratios of interest."""
    max_steps: Annotated[int, Field(ge=1)] = 500
    """Stop after this many steps whatever is closed."""


class GateUnlearning(NeuronUnlearning):
    """Learn a gate for every neuron on the forget set, under a penalty on open gates; what stays open is responsible.

        minimize over the gates   l(M) + lambda * penalty,   lambda_t = lambda_0 * growth^t

    by Adam, one batch of the forget set per step. lambda_0 is where the penalty's pull on one gate equals the mean over
    gates of |dl/dg|, so that the scale of the loss does not matter. Equal scores are ordered by the mean of the gate
    over all steps: among neurons that are fully open at the end, those that were less open in between come last.

    Cost: one forward and backward pass over the forget set, and one over a batch per step: about
    log(lambda_end / lambda_0) / log(growth) steps (50 to 100), whatever the size of the set.
    Memory: 24 * L * m bytes for L layers of m neurons, the activations of one batch, and 8 * B * T * L * m bytes for
    their gated float32 copies (B sequences of T positions).
    """

    Config: ClassVar[type[StrictConfig]] = GateConfig

    @abstractmethod
    def initial(self, neurons: int) -> Tensor:
        """Return the parameter of every gate at the start, (neurons,) for all MLPs in their order."""

    @abstractmethod
    def gates(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Return the gates of one step, (neurons,) in [0, 1]."""

    @abstractmethod
    def openness(self, parameter: Tensor) -> Tensor:
        """Return how open each gate is, (neurons,) in [0, 1]: the score. Its mean is the penalty."""

    def project(self, parameter: Tensor) -> None:
        """Project the parameter onto its range, in place, after a step."""

    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return (neurons,) float32."""
        import torch

        generator = context.generator(self.name)
        pulls = gate_gradients(testbed, testbed.forget, context, self.config)
        strength = max(float(pulls.abs().sum()), _WEAKEST)
        parameter = self.initial(Sizes.of(testbed).neurons).to(testbed.device).requires_grad_()
        adam = torch.optim.Adam([parameter], lr=self.config.learning_rate)
        passed = torch.zeros_like(parameter)
        with gradients_of(testbed.model, []), torch.enable_grad():
            for step, batch in enumerate(self._batches(testbed.forget, context, generator), start=1):
                adam.zero_grad()
                with gated_activations(testbed.mlps, self.gates(parameter, generator)):
                    loss = sequence_losses(testbed.model, batch, tokens=self.config.tokens).mean()
                    (loss + strength * self.openness(parameter).mean()).backward()
                adam.step()
                with torch.no_grad():
                    self.project(parameter)
                    passed += self.openness(parameter)
                if step % _LOOK_EVERY == 0 and self._parted(parameter, loss, step):
                    break
                strength *= self.config.growth
        context.report.notes |= {"steps": step, "final_penalty": strength}
        return (self.openness(parameter) + _TIE_BREAK * passed / step).detach().cpu()

    def cost(self, testbed: Testbed) -> Cost:
        """Return the first pass and the usual number of steps, and the memory of the gated float32 activations."""
        size, given = Sizes.of(testbed), count_tokens(testbed.forget, self.config.batch_size)
        step = count_shuffled_tokens(min(self.config.batch_size, len(testbed.forget)), testbed.forget)
        steps = min(self.config.max_steps, math.ceil(_USUAL_GROWTH / math.log(self.config.growth)))
        return Cost(
            backward_tokens=given.tokens + steps * step,
            sweeps=30 * steps * size.neurons,
            held_tokens=max(given.largest, step),
            device_bytes=24 * size.neurons,
            block_bytes=_GATED * max(given.largest, step) * size.neurons,
            advice="set a smaller batch_size (rows of a step), a faster growth, or fewer max_steps",
        )

    def _batches(self, forget: Sequences, context: Context, generator: torch.Generator) -> Iterator[Sequences]:
        size = min(self.config.batch_size, len(forget))
        batches = shuffled_rows(forget, size, self.config.max_steps, generator)
        return context.track(batches, self.name, self.config.max_steps)

    def _parted(self, parameter: Tensor, loss: Tensor, step: int) -> bool:
        import torch

        with torch.no_grad():
            openness = self.openness(parameter)
            if not torch.isfinite(loss + openness.sum()):
                raise DivergedError(self.name, step)
            return bool((openness < 0.5).float().mean() >= self.config.sparsity)
