"""A metric: a number about a testbed, with a direction and a range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.metric import Direction, Kind, Measurement, Reading

if TYPE_CHECKING:
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.evaluation.passes import Evaluation


class Metric(ABC):
    """A number about a testbed, drawn from the passes that all metrics share."""

    name: ClassVar[str]
    """Its name in snake_case; the key in suites."""
    kind: ClassVar[Kind]
    """What it is about: `memorization`, `utility`, `robustness` or `cost`."""
    direction: ClassVar[Direction]
    """Which way is better."""
    range: ClassVar[tuple[float, float]]
    """The lowest and the highest value that it can have; infinity where there is no limit."""
    by_default: ClassVar[bool] = True
    """Whether it is measured where nobody names metrics (`mitigate`)."""
    Config: ClassVar[type[StrictConfig]] = StrictConfig
    """Its settings, with a default for each."""
    paper: ClassVar[str] = ""
    """Where the definition comes from."""
    excused: ClassVar[Mapping[str, str]] = {}
    """Rules of `unmemorize check` that it breaks on purpose, each with the reason; the report shows both."""

    def __init__(self, config: StrictConfig | None = None, **settings: Any) -> None:
        self.config: Any = self.Config(**settings) if config is None else config

    def label(self, testbed: Testbed) -> str:
        """Return the name under which values are recorded, lengths included where they matter."""
        return self.name

    def readings(self, testbed: Testbed) -> Iterable[Reading]:
        """Return the passes that `measure` will ask for, so that one pass can serve all metrics.

        Nothing depends on it but the time: a pass that was not announced is made when it is asked for.
        """
        return ()

    @abstractmethod
    def measure(self, evaluation: Evaluation) -> Iterable[Measurement]:
        """Yield the values. Keep `per_sequence` and `ids` where the metric is a mean over sequences."""
