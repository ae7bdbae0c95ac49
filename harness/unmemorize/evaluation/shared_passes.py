"""What metrics share while they measure, held against what it was before one of them ran."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from unmemorize.errors import PluginError
from unmemorize.evaluation.declared import called

if TYPE_CHECKING:
    from unmemorize.evaluation.metric import Metric
    from unmemorize.evaluation.passes import Evaluation


class SharedPasses:
    """The passes that are made, and the testbed and context that metrics are given, as they are now."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._given = {name: getattr(evaluation, name) for name in ("testbed", "context")}
        self._fields = {
            name: {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
            for name, thing in self._given.items()
        }

    def check(self, metric: Metric) -> None:
        """Restore what metrics are given, and refuse one that wrote into a pass.

        Raises:
            PluginError: it did.
        """
        for name, thing in self._given.items():
            setattr(self._evaluation, name, thing)
            for field, value in self._fields[name].items():
                if getattr(thing, field) is not value:
                    setattr(thing, field, value)
        if not self._evaluation.intact():
            raise PluginError(
                f"{called(metric)} wrote into a pass that other metrics read",
                expected="a pass as it was: all metrics draw on the same",
                fix="work on `.clone()` of its tensors",
            )
