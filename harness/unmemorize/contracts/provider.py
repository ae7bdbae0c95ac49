"""A model provider: it makes testbeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from unmemorize.contracts.config import StrictConfig
from unmemorize.errors import PluginError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Context
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.testbed import Testbed


class ModelProvider(ABC):
    """Makes a testbed out of a config and a seed."""

    name: ClassVar[str]
    """Its name in snake_case; `provider = "NAME"` in suites."""
    Config: ClassVar[type[StrictConfig]] = StrictConfig
    """Its settings; one that only the user can know (a model, a file) may be required."""
    paper: ClassVar[str] = ""
    """Where the testbed comes from."""
    excused: ClassVar[Mapping[str, str]] = {}
    """Rules of `unmemorize check` that it breaks on purpose, each with the reason; the report shows both."""

    def __init__(self, config: StrictConfig | None = None, **settings: Any) -> None:
        self.config: Any = self.Config(**settings) if config is None else config

    def fingerprint(self) -> dict[str, str]:
        """Return hashes of what the config only points at (files, revisions); they enter the key of every cell."""
        return {}

    def ready(self, context: Context) -> bool:
        """Return whether `load` gives the testbed at once; False where it must train a model first.

        The default answers for providers that do not train.
        """
        return not self.trains()

    @abstractmethod
    def load(self, context: Context) -> Testbed:
        """Return the testbed for `context.seed`: the same one each time, from the cache where there is one.

        What takes long to make is made by `unmemorize.toolkit.CacheEntry`: once for all processes, and never damaged.
        """

    def train(self, testbed: Testbed, regularizer: Method, context: Context) -> PreTrainedModel:
        """Train the testbed's model again from scratch, under `regularizer`, and return it.

        Only for providers that train; the default refuses.
        """
        raise PluginError(
            f"provider {self.name!r} cannot train from scratch",
            expected="a provider that implements `train`",
            fix="use a testbed whose provider is listed with 'trains' by `unmemorize list providers`",
        )

    @classmethod
    def trains(cls) -> bool:
        """Whether this provider can train from scratch."""
        return cls.train is not ModelProvider.train
