"""Tasks of the lm-evaluation-harness, on the model as it stands in memory."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from unmemorize import ConfigError, DataError, Evaluation, Measurement, Metric, StrictConfig, Testbed, UnmemorizeError
from unmemorize.toolkit import mean_over_sequences, nearest

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["lower", "higher"]

_PREFERRED = ("acc_norm", "acc", "exact_match")
"""Which of a task's values stands for it, where nothing else is said."""

_SHARES = ("acc", "exact_match", "f1", "em")
"""Values that start with these are shares of 1, recorded in percent."""


class LMEvalConfig(StrictConfig):
    """Which tasks, how many of their examples, and where tasks of your own are."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("hellaswag",)
    """Names of tasks or groups of the lm-evaluation-harness."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Examples per task, or all."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each question, or as many as the task asks for."""
    value: str | None = None
    """Which of a task's values is recorded (`acc`, `acc_norm`, `word_perplexity`); by default the first that it has of
    acc_norm, acc, exact_match, or else its first."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Sequences read at once."""
    include: Path | None = None
    """Folder with further tasks, as YAML files."""


class LMEval(Metric):
    """Tasks of the lm-evaluation-harness (Gao et al.), on the model in memory; each is recorded as `lm_eval:TASK`.

    Shares (accuracy, exact match, F1) are recorded in percent, other values as the harness reports them. With several
    tasks of one direction their mean is recorded as `lm_eval`. A decode-time method stays active: its processors
    change the likelihoods of choices as well as what is generated. Needs the extra `lm-eval`, a tokenizer, and the
    tasks' data, which the harness fetches from a hub unless a task of your own reads local files. All random states
    are as before afterwards.
    """

    name = "lm_eval"
    kind = "utility"
    direction = "higher"
    range = (0.0, math.inf)
    by_default = False
    Config = LMEvalConfig
    paper = "Gao et al., The Language Model Evaluation Harness, doi 10.5281/zenodo.12608602"

    def label(self, testbed: Testbed) -> str:
        """Return `lm_eval:TASK`, or `lm_eval` for the mean over several."""
        tasks = dict.fromkeys(self.config.tasks)
        return f"{self.name}:{self.config.tasks[0]}" if len(tasks) == 1 else self.name

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the value of each task and, where there are several, their mean.

        Raises:
            UnmemorizeError: the extra is not installed.
            DataError: the testbed has no tokenizer, or the data of a task cannot be read.
            ConfigError: an unknown task, or a task that has no such value.
        """
        testbed = evaluation.testbed
        _check(testbed)
        manager = self._manager()
        for task in self.config.tasks:
            _check_task(task, manager)
        results = self._results(testbed, manager)
        measured = [self._measurement(task, results) for task in dict.fromkeys(self.config.tasks)]
        yield from measured
        if len(measured) > 1 and len({measurement.direction for measurement in measured}) == 1:
            mean = math.fsum(measurement.value for measurement in measured) / len(measured)
            yield Measurement(set="holdout", value=mean, count=sum(each.count for each in measured))

    def _results(self, testbed: Testbed, manager: Any) -> dict[str, Any]:
        try:
            with _states_kept():
                return self._evaluate(testbed, manager)
        except OSError as error:  # no connection, no such data set, no such file: all are errors of the system
            raise DataError(
                f"metric 'lm_eval': the data of {', '.join(self.config.tasks)} cannot be read: {error}",
                expected="a connection to the hub, data that was fetched before, or tasks of your own over local files",
                fix='fetch it once while connected, or write include = "FOLDER" under [metric.lm_eval]',
            ) from error

    def _manager(self) -> Any:
        folder = None if self.config.include is None else str(self.config.include)
        return importlib.import_module("lm_eval.tasks").TaskManager(include_path=folder)

    def _evaluate(self, testbed: Testbed, manager: Any) -> dict[str, Any]:
        results: dict[str, Any] = importlib.import_module("lm_eval").simple_evaluate(
            model=_wrapped(testbed, self.config.batch_size),
            tasks=list(dict.fromkeys(self.config.tasks)),
            num_fewshot=self.config.num_fewshot,
            limit=self.config.limit,
            task_manager=manager,
            bootstrap_iters=0,
        )
        return results

    def _measurement(self, task: str, results: dict[str, Any]) -> Measurement:
        values = _values(results["results"].get(task, {}))
        name = self._chosen(task, values)
        scale = 100.0 if name.startswith(_SHARES) else 1.0
        higher = results.get("higher_is_better", {}).get(task, {}).get(name)
        named = _Named(f"{self.name}:{task}", "lower" if higher is False else "higher")
        samples = _per_sample(results.get("samples", {}).get(task, []), name)
        if samples and scale == 100.0:
            ids, each = zip(*sorted(samples.items()), strict=True)
            return mean_over_sequences("holdout", ids, [scale * value for value in each], **named._asdict())
        count = results.get("n-samples", {}).get(task, {}).get("effective", 0)
        return Measurement(set="holdout", value=scale * values[name], count=count, **named._asdict())

    def _chosen(self, task: str, values: Mapping[str, float]) -> str:
        wanted = [self.config.value] if self.config.value else [*_PREFERRED, *values]
        for name in wanted:
            if name in values:
                return name
        names = nearest(self.config.value or "acc", values)
        raise ConfigError(
            f"task {task!r} of the lm-evaluation-harness gives no value {self.config.value or 'of its own'!r}",
            expected=f"one of {', '.join(names)}" if names else "a task, or a group that averages its tasks",
            fix=f'write value = "{names[0]}" under [metric.lm_eval]' if names else "name the group's tasks one by one",
        )


class _Named(NamedTuple):
    metric: str
    direction: Direction


def _check(testbed: Testbed) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise UnmemorizeError(
            "metric 'lm_eval' needs the lm-evaluation-harness, and it is not installed",
            expected="the package lm-eval, version 0.4 or newer",
            fix="pip install 'unmemorize[lm-eval]'",
        )
    if testbed.tokenizer is None:
        raise DataError(
            f"metric 'lm_eval' asks in words, and testbed {testbed.name!r} has no tokenizer",
            expected="a testbed with a tokenizer: a language model, not arithmetic on ids",
            fix="give the provider a tokenizer, or remove [metric.lm_eval]",
        )


def _check_task(task: str, manager: Any) -> None:
    if manager.match_tasks([task]) != [task]:  # a pattern would match too, but names no one task
        names = nearest(task, manager.all_tasks)
        raise ConfigError(
            f"metric.lm_eval.tasks: the lm-evaluation-harness has no task {task!r}",
            expected=f"one of {', '.join(names)}, ... (`lm_eval ls tasks` shows all)",
            fix=f'write tasks = ["{names[0]}"] under [metric.lm_eval], or include = "FOLDER" of your own tasks',
        )


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a task's values by name: the harness calls them NAME,FILTER and mixes them with errors and an alias."""
    found: dict[str, float] = {}
    for key, value in row.items():
        name, comma, _ = key.partition(",")
        if comma and "_stderr" not in name and isinstance(value, (int, float)):
            found.setdefault(name, float(value))
    return found


def _per_sample(samples: list[Mapping[str, Any]], name: str) -> dict[int, float]:
    """Return the value of every example by its number; nothing where the harness keeps no single number for each."""
    values = {int(sample["doc_id"]): sample.get(name) for sample in samples}
    whole = all(isinstance(value, (bool, int, float)) for value in values.values()) and len(values) == len(samples)
    return {number: float(value) for number, value in values.items() if value is not None} if whole else {}


def _wrapped(testbed: Testbed, batch_size: int) -> Any:
    """Return the harness's view of the testbed's model, with the processors of a decode-time method."""
    import transformers

    HFLM: Any = importlib.import_module("lm_eval.models.huggingface").HFLM

    class Decoded(HFLM):  # type: ignore[misc]
        def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            logits: Tensor = super()._model_call(inps, *args, **kwargs)
            for position in range(logits.shape[1] if testbed.decoding else 0):
                for processor in testbed.decoding:
                    logits[:, position] = processor(inps[:, : position + 1], logits[:, position])
            return logits

        def _model_generate(self, *args: Any, **kwargs: Any) -> Tensor:
            processors = transformers.LogitsProcessorList(testbed.decoding)
            return super()._model_generate(*args, logits_processor=processors, **kwargs)

    # The harness gives the tokenizer a padding token: that is done to a copy.
    tokenizer = copy.deepcopy(testbed.tokenizer)
    return Decoded(pretrained=testbed.model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)


@contextmanager
def _states_kept() -> Iterator[None]:
    """Put the global random states, which the harness seeds, back afterwards."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
