"""Where cells run: anything that is a `concurrent.futures.Executor`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from unmemorize.contracts.config import StrictConfig

if TYPE_CHECKING:
    from concurrent.futures import Executor


class ExecutorFactory(ABC):
    """Makes the executor to which a run submits its chunks of cells (each of one testbed and seed).

    What is submitted is a picklable function that starts a worker process where it runs, and watches over it: the
    executor need not care about plugins that crash, hang or print.
    """

    name: ClassVar[str]
    """Its name in snake_case; the value of `--executor`."""
    by_default: ClassVar[bool] = False
    """Whether it is the executor of runs that name none; one plugin's can be."""
    elsewhere: ClassVar[bool] = False
    """Whether chunks may run on other machines; which accelerator there is, is then found out there."""
    Config: ClassVar[type[StrictConfig]] = StrictConfig
    """Its settings, with a default for each; `[run.executor_config]` in suites."""

    def __init__(self, config: StrictConfig | None = None, **settings: Any) -> None:
        self.config: Any = self.Config(**settings) if config is None else config

    @property
    def workers(self) -> int:
        """How many chunks run at once; by default its setting `workers`, or 1."""
        return getattr(self.config, "workers", None) or 1

    @abstractmethod
    def create(self) -> Executor:
        """Return the executor; the run enters and leaves it as a context manager."""
