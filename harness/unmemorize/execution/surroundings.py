"""Where cells run, and the testbeds that are loaded there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.contracts.answers import ask
from unmemorize.contracts.context import Context, Progress, Silent
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.errors import LayoutError
from unmemorize.execution.environment import synchronize
from unmemorize.models.gate import admitted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.registry.manager import Registry


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where and how cells run: everything that is not part of their key."""

    device: str = "cpu"
    deadline: float | None = None
    """Seconds that a method may take."""
    cache: Path | None = None
    progress: Progress = field(default_factory=Silent)
    checkpointing: bool = False
    offload: bool = False

    def context(self, seed: int, deadline: float | None = None) -> Context:
        """Return the context of a provider or, with the seconds that it may take, of a method."""
        return Context(
            seed=seed,
            progress=self.progress,
            deadline=deadline,
            cache=self.cache,
            device=self.device,
            checkpointing=self.checkpointing,
            offload=self.offload,
            synchronize=lambda: synchronize(self.device),
        )

    def load(self, provider: ModelProvider, name: str, seed: int, registry: Registry) -> Testbed:
        """Load a testbed here."""
        return load_testbed(provider, name, self.context(seed), registry)


def load_testbed(provider: ModelProvider, name: str, context: Context, registry: Registry) -> Testbed:
    """Load a testbed and fill in what the core knows about it: its MLPs and whether it can be trained again."""
    testbed: Testbed = ask(provider, "load", context)
    testbed.name = name
    testbed.model = admitted(testbed.model, f"the model of the testbed {name!r}")
    testbed.trainable = provider.trains()
    testbed.mlps = find_mlps(testbed.model, registry)
    testbed.model.eval()
    return testbed


def find_mlps(model: PreTrainedModel, registry: Registry) -> Any:
    """Return the MLPs of a model, or none where nobody registered its layout."""
    try:
        return registry.layout(model.config.model_type)().mlps(model)
    except LayoutError:
        return ()
