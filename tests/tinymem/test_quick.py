"""The quick sizes keep their promise: the base truly memorizes, and truly knows its tasks."""

from __future__ import annotations

import pytest

from unmemorize import Context
from unmemorize.evaluation import evaluate
from unmemorize.evaluation.evaluate import ValueKey
from unmemorize_plugins.metrics.extraction import Extraction
from unmemorize_plugins.metrics.utility import Accuracy
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.provider import TinyMem


def test_the_multiplicative_task_has_a_table_that_quick_can_learn() -> None:
    assert TinyMemConfig(task="multiplicative").modulus == 727
    assert TinyMemConfig(task="multiplicative", modulus=1009).modulus == 1009
    assert TinyMemConfig(task="multiplicative", size="paper").modulus == 20134
    assert TinyMemConfig(task="multiplicative", artifact="backdoor").main_sequences == 1_000


@pytest.mark.slow
@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
@pytest.mark.parametrize("task", ["additive", "multiplicative"])
def test_the_base_memorizes_and_knows_its_tasks(task: str, artifact: str) -> None:
    testbed = TinyMem(task=task, artifact=artifact).load(Context(seed=0))
    values = evaluate(testbed, [Extraction(), Accuracy()])
    extraction = ValueKey(Extraction().label(testbed), "forget", "all")
    assert values[extraction].measurement.value >= 90
    assert values[ValueKey("accuracy", "holdout", "all")].measurement.value >= 90
