"""Rerun only the layers above an MLP, after a change of what this MLP writes to the residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from unmemorize.contracts.cost import Cost, Sizes, count_tokens
from unmemorize.contracts.layout import MLP
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.models.versions import empty_cache, keys_and_values, taking
from unmemorize.training.losses import vocabulary_of
from unmemorize.unlearning.activations import neuron_activations, running_as

if TYPE_CHECKING:
    from torch import Tensor, nn

_ADDITIVE_WITHIN = 0.02
"""Relative difference that bfloat16 rounding stays below, and a norm or a multiplier does not."""

_REREADS = 32
"""On a CPU reruns should fill this many times the numbers in a matrix: its weights are read once for all of them."""

_ROOM_CPU, _ROOM = 2**22, 2**26
"""Numbers that reruns made together should fill: 16 MiB in float32 stay near a CPU's caches; accelerators want more."""


class Recording(NamedTuple):
    """What one pass over a batch left behind. B rows, T positions, L MLPs, d = width, m = neurons."""

    tokens: Tensor
    """(B, T) the input ids."""
    activations: list[Tensor]
    """L x (B, T, m): what entered each `down`."""
    outputs: list[Tensor]
    """L x (B, T, d): what the block of each MLP returned."""
    past: list[tuple[Tensor, Tensor]]
    """Keys and values of every block, each (B, heads, T, size of a head); empty if they were not asked for."""


class Span(NamedTuple):
    """The part of a recording that is the input of a rerun: R rows (with repetition) and S positions of them."""

    rows: Tensor
    """(R,) int64, row numbers in the recording."""
    positions: slice = slice(None)
    """Positions; if they do not start at 0, keys and values of those before are taken from the recording."""

    def of(self, recorded: Tensor) -> Tensor:
        """Return the (R, S, ...) part of a recorded (B, T, ...)."""
        return recorded[self.rows.to(recorded.device), self.positions]


class Replay:
    """A model that can be started in the middle.

    `down` is linear: if the activations change by da, then what `down` writes changes by da @ down, and nothing else in
    this layer changes. Where the block adds that to its output as it is (tested for each MLP, on one row), all blocks
    up to and including this one are skipped. Where something follows `down` inside the block (a norm, a multiplier),
    this block runs again too. The model's own forward supplies masks and positions. Exact, up to rounding.

    `rerun_numbers` is how many numbers reruns that are made together should fill.

    Memory of a recording: B * T * L * (m + d) numbers, and B * T * L * 2 d more for keys and values.
    """

    def __init__(self, testbed: Testbed, sequences: Sequences) -> None:
        self.model, self.mlps, self.device = testbed.model, testbed.mlps, testbed.device
        self.vocabulary = vocabulary_of(testbed.model)
        self.rerun_numbers, self.size = rerun_numbers(testbed), Sizes.of(testbed)
        self._tuples = False  # whether blocks return tuples, as those of some architectures do
        row = self.record(sequences.select([0]).cut())
        self.additive = [self._adds(row, index) for index in range(len(self.mlps))]

    def record(self, batch: Sequences, *, past: bool = False) -> Recording:
        """Run the model once over `batch` and keep what reruns need; keys and values only if `past`."""
        import torch
        from torch import Tensor

        with torch.no_grad():
            nothing = [torch.empty(0)] * len(self.mlps)
            recording = Recording(batch.inputs().to(self.device), [*nothing], [*nothing], [])

            def keep(index: int, activations: Tensor) -> None:
                recording.activations[index] = activations.detach()

            def keep_block(index: int) -> Any:
                def hook(_: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> None:
                    self._tuples = not isinstance(output, Tensor)
                    recording.outputs[index] = _hidden(output).detach()

                return hook

            with ExitStack() as stack:
                stack.enter_context(neuron_activations(self.mlps, keep))
                for index, mlp in enumerate(self.mlps):
                    stack.callback(mlp.block.register_forward_hook(keep_block(index)).remove)
                base, cache = self.model.base_model, empty_cache() if past else None
                base(input_ids=recording.tokens, use_cache=past, **taking(base, cache))
            return recording._replace(past=keys_and_values(cache)) if past else recording

    def logits(
        self, recording: Recording, index: int, span: Span, change: Tensor, read: Tensor | None = None
    ) -> Tensor:
        """Return what the model predicts if one MLP wrote something else.

        Args:
            recording: a pass over the rows.
            index: of the MLP.
            span: the input.
            change: (R, S, d) float32, added to what `down` wrote in this span. Gradients flow to it.
            read: (R, S) bool, where predictions are wanted, by default everywhere; logits are computed only there.

        Returns:
            (n, vocabulary) float32, for the n places of `read` in their order.
        """
        with self._started_above(recording, index, span, change), _reading(self.model, read):
            past = taking(self.model, self._past(recording, index, span))
            result = self.model(input_ids=span.of(recording.tokens), use_cache=False, **past)
        logits: Tensor = result.logits
        return logits.flatten(0, 1).float()

    @contextmanager
    def _started_above(self, recording: Recording, index: int, span: Span, change: Tensor) -> Iterator[None]:
        layer = self.mlps[index].layer + self.additive[index]  # the first block that runs
        skipped = [mlp for mlp in self.mlps if mlp.layer < layer]
        with ExitStack() as stack:
            if self.additive[index]:
                start = _plus(span.of(recording.outputs[index]), change)
            else:
                start = span.of(recording.outputs[max(0, len(skipped) - 1)])
                stack.callback(self.mlps[index].down.module.register_forward_hook(_adding(change)).remove)
            for block in {id(mlp.block): mlp.block for mlp in skipped}.values():
                output = (start,) if self._tuples else start
                stack.enter_context(running_as(block, lambda *_, output=output, **__: output))
            yield

    def _past(self, recording: Recording, index: int, span: Span) -> Any:
        """Return a fresh cache of the positions before the span.

        Of the layers that are skipped the model only asks the length: they keep one row of one head. A cache, even an
        empty one, also keeps blocks from being recomputed in the backward pass, when what is patched here is no more.
        """
        if not recording.past:
            return None
        cache = empty_cache()
        until, first = span.positions.start or 0, self.mlps[index].layer + self.additive[index]
        for layer, (keys, values) in enumerate(recording.past if until else ()):
            if layer < first:
                cache.update(keys[:1, :1, :until], values[:1, :1, :until], layer)
            else:
                rows = span.rows.to(keys.device)
                cache.update(keys[rows, :, :until], values[rows, :, :until], layer)
        return cache

    def _adds(self, row: Recording, index: int) -> bool:
        """Whether a change of what `down` writes arrives at the block's output unchanged."""
        import torch

        with torch.no_grad():
            seen: list[Tensor] = []

            def look(_: nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> None:
                seen.append(_hidden(output))

            change = row.outputs[index].float()  # as large as the output itself, so that a norm cannot hide
            with ExitStack() as stack:
                stack.callback(self.mlps[index].block.register_forward_hook(look).remove)
                stack.callback(self.mlps[index].down.module.register_forward_hook(_adding(change)).remove)
                self.model.base_model(input_ids=row.tokens, use_cache=False)
            error = (seen[0] - 2 * change).float().norm()
            return bool(error <= _ADDITIVE_WITHIN * change.float().norm())


def recording_cost(testbed: Testbed, sequences: Sequences, batch_size: int, *, past: bool = False) -> Cost:
    """Return what it takes to make a `Replay` and to record every batch of `sequences`, and the memory of reruns."""
    size, given = Sizes.of(testbed), count_tokens(sequences, batch_size, whole=True)
    first = int(sequences.lengths[0]) * (1 + size.layers)
    numbers = size.neurons + (3 if past else 1) * size.layers * size.width
    return Cost(
        forward_tokens=first + given.tokens,
        device_bytes=given.largest * numbers * size.weight_bytes + 4 * rerun_numbers(testbed),
    )


def rerun_numbers(testbed: Testbed) -> int:
    """Return how many numbers reruns made together should fill: enough that reading the weights does not dominate."""
    if testbed.device.type != "cpu":
        return _ROOM
    largest = max(matrix.weight.numel() for mlp in testbed.mlps for matrix in mlp.matrices)
    return max(_ROOM_CPU, _REREADS * largest)


def outgoing_rows(mlp: MLP) -> Tensor:
    """Return (m, d) float32: what each neuron writes to the residual stream at activation 1."""
    return mlp.down.by_input().detach().flatten(0, -2).float()


@contextmanager
def _reading(model: nn.Module, read: Tensor | None) -> Iterator[None]:
    """Let the output layer see only the true places of `read` (R, S): logits are then (1, n, vocabulary)."""
    if read is None:
        yield
        return
    places = read

    def only(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][places.to(inputs[0].device)][None], *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(only)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def _adding(change: Tensor) -> Any:
    """Return a hook that adds to what a `down` writes, (R, S, d), however its module counts rows and positions."""

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        import torch

        first, *others = output.reshape(-1, *change.shape)  # others where each expert's part is given
        return torch.stack([_plus(first, change), *others]).view_as(output)

    return hook


def _hidden(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    from torch import Tensor

    return output if isinstance(output, Tensor) else output[0]


def _plus(recorded: Tensor, change: Tensor) -> Tensor:
    return (recorded.float() + change).to(recorded.dtype)
