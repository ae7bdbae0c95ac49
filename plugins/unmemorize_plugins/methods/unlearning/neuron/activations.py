"""Neuron activations (Chang et al. 2024, section 3.3): remove the neurons that are most active in regurgitating.

attribution_n = mean over sequences and suffix positions of |a_n|, times the norm of the neuron's outgoing weights
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from unmemorize import Context, Cost, NeuronConfig, NeuronUnlearning, Testbed
from unmemorize.toolkit import Sizes, count_tokens, neuron_activations, outgoing_rows

if TYPE_CHECKING:
    from torch import Tensor


class ActivationsConfig(NeuronConfig):
    """Grid of Sakarvadia et al. 2025: ratio in {0.001, 0.01, 0.05}."""

    sign: Literal["mean_of_abs", "abs_of_mean"] = "mean_of_abs"
    """Whether activations of opposite signs add up or cancel."""


class Activations(NeuronUnlearning):
    """Score a neuron by its mean activation on the suffixes times the norm of its outgoing weights.

    Cost: one forward pass over the forget set. Memory: running sums, 4 * layers * neurons bytes, and the activations of
    one batch.
    """

    name = "activations"
    Config = ActivationsConfig
    paper = "Chang et al. 2024, arXiv 2311.09060"

    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return (neurons,) float32."""
        import torch

        with torch.no_grad():
            sums = [torch.zeros(mlp.neurons) for mlp in testbed.mlps]
            positions = 0
            for batch in context.track(list(testbed.forget.batches(self.config.batch_size)), "activations"):
                read = batch.predicting()
                positions += int(read.sum())

                def add(index: int, activations: Tensor, read: Tensor = read) -> None:
                    chosen = activations[read.to(activations.device)].float()
                    sums[index] += (chosen.abs() if self.config.sign == "mean_of_abs" else chosen).sum(0).cpu()

                with neuron_activations(testbed.mlps, add):
                    testbed.model.base_model(input_ids=batch.inputs().to(testbed.device), use_cache=False)
            norms = torch.cat([outgoing_rows(mlp).norm(dim=1).cpu() for mlp in testbed.mlps])
            return (torch.cat(sums) / max(1, positions)).abs() * norms

    def cost(self, testbed: Testbed) -> Cost:
        """Return one forward pass; the sums wait on the CPU."""
        given, size = count_tokens(testbed.forget, self.config.batch_size, whole=True), Sizes.of(testbed)
        one_layer = 8 * given.largest * size.neurons / size.layers
        return Cost(forward_tokens=given.tokens, device_bytes=one_layer, cpu_bytes=8 * size.neurons)
