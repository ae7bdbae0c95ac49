"""Random neurons: the control. A method that does no better than this has found nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unmemorize import Context, Cost, NeuronUnlearning, Testbed
from unmemorize.toolkit import Sizes

if TYPE_CHECKING:
    from torch import Tensor


class RandomNeurons(NeuronUnlearning):
    """Remove neurons drawn uniformly; the seed decides which, and a larger ratio removes those of a smaller one too.

    It is shown no data. Cost: nothing. Memory: 4 * layers * neurons bytes.
    """

    name = "random_neurons"
    needs = frozenset()

    def attribute(self, testbed: Testbed, context: Context) -> Tensor:
        """Return (neurons,) float32, uniform in [0, 1)."""
        import torch

        return torch.rand(Sizes.of(testbed).neurons, generator=context.generator(self.name))

    def cost(self, testbed: Testbed) -> Cost:
        """Return a number for each neuron."""
        neurons = Sizes.of(testbed).neurons
        return Cost(sweeps=10 * neurons, cpu_bytes=8 * neurons)
