"""Quantization: does what a method removed come back when the weights are rounded?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from unmemorize import DataError, Evaluation, Measurement, Testbed
from unmemorize.toolkit import mean_over_sequences
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, extractable, forget_sets

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class QuantizationConfig(WindowConfig):
    """The lengths of the check, and the widths of the rounded weights."""

    bits: Annotated[tuple[Literal[8, 4], ...], Field(min_length=1)] = (8, 4)
    """Bits per weight, one value recorded for each."""


class Quantization(WindowMetric):
    """Percent of the sequences that are extractable after the weights have been rounded to 8 or 4 bits.

    Round to nearest, symmetric, one scale per output channel: w' = s * round(w / s), s = max|w| / (2^(bits-1) - 1),
    for the weights of every `Linear` and `Conv1D` of the model but its output head; embeddings, norms and biases stay
    as they are. The weights are rounded in place and restored afterwards, bit for bit. The part `plain` is
    `extraction` without rounding: a method whose edits are smaller than a rounding step gives back what it hid.

    Memory: one more copy of the rounded weights, on the CPU.
    """

    name = "quantization"
    kind = "robustness"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = QuantizationConfig
    paper = "Zhang et al. 2024, arXiv 2410.16454"

    def label(self, testbed: Testbed) -> str:
        """Return the name of the first width's value."""
        return self._label(testbed, self.config.bits[0])

    def _label(self, testbed: Testbed, bits: int) -> str:
        return f"{self.labelled(self.name, testbed)},int{bits}"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield for each width the share after rounding, and the plain one, on the two forget sets."""
        testbed = evaluation.testbed
        window = self.window(testbed)
        for bits in dict.fromkeys(self.config.bits):
            label = None if bits == self.config.bits[0] else self._label(testbed, bits)
            with rounded(testbed, bits):
                attacked = Evaluation(testbed, evaluation.context)
                found = {name: extractable(attacked, name, window) for name in forget_sets(testbed)}
            for name, (ids, hits) in found.items():
                yield mean_over_sequences(name, ids, hits, metric=label)
                yield mean_over_sequences(name, *extractable(evaluation, name, window), metric=label, part="plain")


@contextmanager
def rounded(testbed: Testbed, bits: int) -> Iterator[None]:
    """Round the weights of the testbed's model inside, and restore them afterwards.

    Raises:
        DataError: the weights are not in memory.
    """
    weights = _weights(testbed)
    kept = [weight.detach().to("cpu", copy=True) for weight, _ in weights]
    try:
        for weight, channels in weights:
            weight.detach().copy_(round_to_nearest(weight.detach(), bits, channels))
        yield
    finally:
        for (weight, _), before in zip(weights, kept, strict=True):
            weight.detach().copy_(before)


def round_to_nearest(weight: Tensor, bits: int, channels: int) -> Tensor:
    """Return the matrix rounded to `bits`, one symmetric scale for each index of dimension `channels`."""
    most = 2 ** (bits - 1) - 1
    exact = weight.float()
    scale = exact.abs().amax(dim=1 - channels, keepdim=True) / most
    steps = (exact / scale.where(scale > 0, 1.0)).round()
    return (steps * scale).to(weight.dtype)


def _weights(testbed: Testbed) -> list[tuple[Tensor, int]]:
    """Return every matrix to round with the dimension of its output channels, each once."""
    model: Any = testbed.model
    spared = {id(getattr(part, "weight", None)) for part in (model.get_input_embeddings(), _head(model))}
    found: dict[int, tuple[Tensor, int]] = {}
    for name, module in model.named_modules():
        channels = {"Linear": 0, "Conv1D": 1}.get(type(module).__name__)
        if channels is None or id(module.weight) in spared:
            continue
        if module.weight.is_meta:
            raise DataError(
                f"metric 'quantization' cannot round {name}.weight of testbed {testbed.name!r}: it is not in memory",
                expected="a model whose weights are all on a device or in main memory",
                fix="load it with a device_map that offloads nothing to disk, or remove [metric.quantization]",
            )
        found[id(module.weight)] = (module.weight, channels)
    return list(found.values())


def _head(model: Any) -> Module | None:
    head: Module | None = model.get_output_embeddings()
    return head
