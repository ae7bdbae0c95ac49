"""A plugin with one method: every neuron says a little less."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from unmemorize import Context, Method, StrictConfig, Testbed, hookimpl
from unmemorize.toolkit import missing_layout


class ShrinkConfig(StrictConfig):
    """How much."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """What the outgoing weights of every MLP are multiplied by."""


class Shrink(Method):
    """Multiply the outgoing weights of every MLP by a factor below 1. A control: it looks at no data."""

    name = "shrink"
    stage = "unlearn"
    needs = frozenset()
    Config = ShrinkConfig

    def supports(self, testbed: Testbed) -> str | None:
        """Answer for models without a layout."""
        return super().supports(testbed) or missing_layout(testbed)

    def apply(self, testbed: Testbed, context: Context) -> None:
        """Shrink them, in place."""
        with context.timed("edit"), torch.no_grad():
            for mlp in testbed.mlps:
                mlp.down.weight.mul_(self.config.factor)


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the methods of this plugin."""
    return [Shrink]
