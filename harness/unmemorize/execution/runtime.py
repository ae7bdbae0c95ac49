"""Where cells run, and the testbeds that are loaded there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unmemorize.contracts.answers import ask
from unmemorize.contracts.context import Context, Progress, Silent
from unmemorize.contracts.namespaces import Namespaces
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.testbed import Testbed
from unmemorize.execution.architecture import fill_mlps
from unmemorize.execution.environment import synchronize
from unmemorize.execution.isolation import isolated
from unmemorize.execution.report import recordable_facts
from unmemorize.execution.sound_data import check_data
from unmemorize.models.gate import admitted

if TYPE_CHECKING:
    from unmemorize.registry.manager import Registry


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how cells run: everything that is not part of their key."""

    device: str = "cpu"
    deadline: float | None = None
    """Seconds that a cell may take, once its testbed is loaded."""
    memory: int | None = None
    """Bytes that a worker process may hold."""
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
    with isolated(context.seed, Namespaces()) as guard:
        testbed: Testbed = ask(provider, "load", context)
        trainable = provider.trains()
    testbed.name = name
    testbed.facts = recordable_facts(provider, testbed.facts)
    if guard.changes:
        testbed.facts["undone"] = guard.changes
    testbed.model = admitted(testbed.model, f"the model of the testbed {name!r}")
    check_data(provider.name, testbed)
    testbed.trainable = trainable
    fill_mlps(testbed, registry)
    testbed.model.eval()
    return testbed
