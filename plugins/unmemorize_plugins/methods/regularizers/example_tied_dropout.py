"""Example-tied dropout (Maini et al. 2023): give every example neurons to memorize in, then drop these.

In each MLP a share p_fixed of the neurons is on for every example; of the others, an example switches on its own fixed
random share p_mem. What only one example needs gathers in its own neurons, and these are off at evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from unmemorize import MLP, ConfigError, Cost, PluginError, Regularizer, Sequences, StrictConfig, Testbed
from unmemorize.toolkit import Sizes, missing_layout, neuron_activations

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel


class ExampleTiedDropoutConfig(StrictConfig):
    """Grid of Sakarvadia et al. 2025: p_mem in {0.01, 0.05, 0.1}."""

    p_fixed: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the neurons of each MLP that is on for every example; only these stay on at evaluation."""
    p_mem: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the other neurons that each example switches on for itself: each with this probability."""


class ExampleTiedDropout(Regularizer):
    """Train with MLP neurons of which each example sees the common ones and its own; evaluate with the common ones.

    Which neurons are an example's own is a hash of its id, so its duplicates share them and no table is kept. At
    evaluation the common neurons are multiplied by s = (p_fixed + p_mem (1 - p_fixed)) / p_fixed, the number of neurons
    that were on in training over those that are left: were all neurons alike, `down` would give what it gave in
    training, on average (Maini et al. do likewise). `finish` writes this into `down`: rows of own neurons become 0.

    Cost: as plain training, and a hash per neuron and row of a batch. Memory: 24 * batch * m bytes for the hash of one
    layer of m neurons, beside one more copy of each layer's activations for the backward pass.
    """

    name = "example_tied_dropout"
    Config = ExampleTiedDropoutConfig
    paper = "Maini et al. 2023, arXiv 2307.09542"

    def supports(self, testbed: Testbed) -> str | None:
        """Answer also for models without a layout."""
        return super().supports(testbed) or missing_layout(testbed)

    def extra_cost(self, testbed: Testbed, plain: Cost) -> Cost:
        """Return one more copy of each layer's activations, and the hashes of one."""
        size = Sizes.of(testbed)
        copies = plain.held_tokens * size.neurons * size.weight_bytes
        hashes = 24 * testbed.recipe.batch_size * size.neurons / size.layers
        return Cost(device_bytes=copies + hashes)

    @contextmanager
    def attach(self, model: PreTrainedModel, mlps: tuple[MLP, ...], generator: torch.Generator) -> Iterator[None]:
        """Mask what enters every `down`: by example while training, and as `finish` does it otherwise."""
        import torch

        seed = int(torch.randint(2**32, (), generator=generator))
        places = [_mixed(torch.arange(mlp.neurons) + (index << 20)) for index, mlp in enumerate(mlps)]
        lasting = [self.lasting(mlp) for mlp in mlps]
        self._examples = torch.empty(0, dtype=torch.int64)

        def mask(index: int, activations: Tensor) -> Tensor:
            if not model.training:
                return activations * lasting[index].to(activations)
            self._check_announced(len(activations))
            drawn = _drawn(self._examples.to(activations.device), places[index].to(activations.device), seed)
            on = (drawn < self.config.p_mem) | (lasting[index] > 0).to(activations.device)  # (B, m)
            return activations * on[:, None].to(activations.dtype)

        with neuron_activations(mlps, mask):
            yield

    def before_batch(self, batch: Sequences) -> None:
        """Note which examples the next forward pass is about."""
        self._examples = batch.ids

    def finish(self, model: PreTrainedModel, mlps: tuple[MLP, ...]) -> None:
        """Take the examples' own neurons out of `down`, and let the common ones make up for them."""
        for mlp in mlps:
            rows = mlp.down.by_input()
            rows.mul_(self.lasting(mlp).view(*rows.shape[:-1], 1).to(rows))

    def lasting(self, mlp: MLP) -> Tensor:
        """Return what each neuron is multiplied by at evaluation, (m,) float32: s for the common ones, 0 for others.

        The common ones are the first: before training one neuron is as good as another.
        """
        import torch

        common = round(self.config.p_fixed * mlp.neurons)
        if not 0 < common < mlp.neurons:
            raise ConfigError(
                f"{self.name}: p_fixed = {self.config.p_fixed} makes {common} of {mlp.neurons} neurons common",
                expected="at least one common neuron in each layer, and one that is not",
                fix=f"set p_fixed between {1 / mlp.neurons:.3g} and {1 - 1 / mlp.neurons:.3g}",
            )
        share = common / mlp.neurons
        factors = torch.zeros(mlp.neurons)
        factors[:common] = (share + self.config.p_mem * (1 - share)) / share
        return factors

    def _check_announced(self, rows: int) -> None:
        if rows != len(self._examples):
            raise PluginError(
                f"{self.name}: {rows} rows in training mode, but {len(self._examples)} examples were announced",
                expected="`before_batch` with the rows of every training pass, in their order",
                fix="train through `unmemorize.toolkit.train`, and evaluate in eval mode",
            )


_BITS = 0xFFFFFFFF


def _drawn(examples: Tensor, places: Tensor, seed: int) -> Tensor:
    """Return a number in [0, 1) for each of B examples (ids) and m places (hashes), (B, m), random but always the same.

    32-bit hashes held in int64, where no product overflows: every device computes the same.
    """
    keys = _mixed(_mixed((examples ^ seed) & _BITS) ^ (examples >> 32 & _BITS))
    return _mixed(keys[:, None] ^ places) / 2**32


def _mixed(values: Tensor) -> Tensor:
    """Return a 32-bit hash of 32-bit values in which every bit depends on every bit (shift, xor, multiply)."""
    for _ in range(2):
        values = (values >> 16 ^ values) * 0x45D9F3B & _BITS
    return values >> 16 ^ values
