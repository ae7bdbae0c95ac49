"""One timed step of each kind on a loaded testbed: what a token, an operation and an activation take here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unmemorize.contracts.context import Context
from unmemorize.contracts.cost import Sizes
from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.editing.checkpointing import checkpointed_blocks
from unmemorize.editing.edits import gradients_of, matrices_of
from unmemorize.errors import DataError
from unmemorize.execution.environment import synchronize
from unmemorize.execution.memory import free_bytes
from unmemorize.training.losses import hidden_states, sequence_losses

_TOKENS_CPU, _TOKENS = 512, 4096
"""Tokens of a probe's batch: enough that a token costs what it does in a method's."""
_NUMBERS = 2**24
_BLOCKS, _BLOCK = 256, 50


class Rates(NamedTuple):
    """Seconds for each unit of a `Cost`."""

    forward: float
    backward: float
    training: float
    sweep: float
    multiplication: float


def probe(testbed: Testbed, context: Context) -> Rates:
    """Time one step of each kind, after a warm-up, on a few rows of the forget set. The model is left as it was.

    Memory: the activations of at most 512 tokens (4096 on an accelerator), and, where they fit, the gradients of all
    parameters; where not, training is taken to cost one and a half times a step with the MLPs' gradients.
    """
    batch = probe_rows(testbed)
    tokens = len(batch) * (batch.tokens.shape[1] - 1)
    model = testbed.model
    everything, some = list(model.parameters()), _some_weights(testbed)
    size = sum(parameter.numel() * parameter.element_size() for parameter in everything)
    device = testbed.device

    def backward(weights: Sequence[nn.Parameter]) -> Callable[[], object]:
        def step() -> None:
            with gradients_of(model, weights), torch.enable_grad():
                sequence_losses(model, batch).sum().backward()

        return step

    with checkpointed_blocks(testbed.mlps if context.checkpointing else ()):
        with torch.no_grad():
            forward = _seconds(lambda: sequence_losses(model, batch), device) / tokens
        limited = _seconds(backward(some), device) / tokens
        whole = 1.5 * limited
        if free_bytes(device) > 2 * size:
            whole = _seconds(backward(everything), device) / tokens
    return Rates(forward, limited, whole, _sweep(device), _multiplication(device))


def probe_rows(testbed: Testbed) -> Sequences:
    """Return the first rows of the forget set, as many as a probe's batch holds."""
    wanted = _TOKENS_CPU if testbed.device.type == "cpu" else _TOKENS
    rows = _filled(testbed)
    return rows.select(slice(0, max(1, wanted // int(rows.lengths.max())))).cut()


def _filled(testbed: Testbed) -> Sequences:
    """Return the forget set, or another one that holds rows."""
    for sequences in (testbed.forget, *testbed.sets().values()):
        if len(sequences):
            return sequences
    raise DataError(
        f"testbed {testbed.name!r} holds no sequences, so nothing can be probed on it",
        expected="at least one sequence in one of its sets",
        fix="check the sizes in the testbed's settings",
    )


def _some_weights(testbed: Testbed) -> list[nn.Parameter]:
    """Return the MLP matrices, or the embedding where there is no layout: gradients reach all blocks."""
    embedding: Any = testbed.model.get_input_embeddings()
    return [matrix.weight for matrix in matrices_of(testbed.mlps).values()] or [embedding.weight]


def activation_bytes(testbed: Testbed, context: Context, *, training: bool) -> float:
    """Return the bytes that wait for a backward pass, for each token of a batch; one small forward pass finds them.

    With checkpointing these are one block's activations and the inputs of all blocks.

    Args:
        testbed: a loaded testbed; its model is left as it was.
        context: says whether blocks are recomputed.
        training: whether all parameters take gradients, or those of the MLPs only.
    """
    batch = _filled(testbed).select(slice(0, 2)).cut()
    ids = batch.inputs().to(testbed.device)
    known = {parameter.untyped_storage().data_ptr() for parameter in testbed.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = list(testbed.model.parameters()) if training else _some_weights(testbed)
    watching = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with gradients_of(testbed.model, weights), torch.enable_grad(), watching:
        hidden = hidden_states(testbed.model, ids)
    each = sum(kept.values()) / ids.numel()
    if not (context.checkpointing and testbed.mlps):
        return each
    layers = Sizes.of(testbed).layers
    return each / layers + layers * hidden.shape[-1] * hidden.element_size()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of `work`, the better of two times after a first one that warms up."""
    work()
    spent = []
    for _ in range(2):
        synchronize(str(device))
        begin = time.perf_counter()
        work()
        synchronize(str(device))
        spent.append(time.perf_counter() - begin)
    return min(spent)


def _sweep(device: torch.device) -> float:
    numbers = torch.ones(_NUMBERS, device=device)
    return _seconds(lambda: numbers.mul_(1.0), device) / _NUMBERS


def _multiplication(device: torch.device) -> float:
    dtype = torch.float32 if device.type == "mps" else torch.float64
    blocks = torch.ones(_BLOCKS, _BLOCK, _BLOCK, device=device, dtype=dtype)
    return _seconds(lambda: blocks @ blocks, device) / (_BLOCKS * _BLOCK**3)
