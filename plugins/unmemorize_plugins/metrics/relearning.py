"""Relearning: does a little fine-tuning on some memorized sequences bring the others back?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from unmemorize import Context, Evaluation, Measurement, Sequences, Testbed, TrainingRecipe, Window
from unmemorize.toolkit import mean_over_sequences, train
from unmemorize_plugins.metrics.window import WindowConfig, WindowMetric, extractable, forget_sets


class RelearningConfig(WindowConfig):
    """The lengths of the check, and the fine-tuning; what is not given is taken from the testbed's recipe."""

    steps: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps of the attack."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the forget set that the attack trains on; the rest is measured."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Constant learning rate; by default a tenth of that which the model was trained with: at the full rate a few
    steps on a part make a model forget the rest."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Sequences per optimizer step; by default as the model was trained."""


class Relearning(WindowMetric):
    """Percent of the sequences that are extractable after fine-tuning on *other* sequences of the forget set.

    A copy of the model is trained for a few steps on a random part of the forget set (the same part before and after
    a method), and `extraction` is measured on the rest, and on `forget_unseen`, after 1, 2, 4, ... steps. As an
    attacker would choose the best moment, the highest of these shares is recorded. The part `plain` is the share
    without training, on the same sequences. What was removed stays away; what was only hidden comes back with its
    neighbours. The testbed's model, its gradients and the random state are not touched.

    Memory: one more model in float32, its gradients and the optimizer's state. Cost: `steps` optimizer steps, and a
    pass over the rest for each moment.
    """

    name = "relearning"
    kind = "robustness"
    direction = "lower"
    range = (0.0, 100.0)
    by_default = False
    Config = RelearningConfig
    paper = "Hu et al. 2024, arXiv 2406.13356"

    def settings(self) -> list[str]:
        """Return the number of steps."""
        return [f"steps={self.config.steps}"]

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        """Yield the share after relearning, and the plain one, on the rest of `forget` and on `forget_unseen`."""
        testbed = evaluation.testbed
        parts = self.parts(evaluation)
        if not len(parts.taught):
            yield from (mean_over_sequences(name, [], []) for name in forget_sets(testbed))
            return
        course = self.course(evaluation, parts)
        for name, (ids, hits) in course.best.items():
            before = dict(zip(*extractable(evaluation, name, self.window(testbed)), strict=True))
            yield mean_over_sequences(name, ids, hits)
            yield mean_over_sequences(name, ids, [before[number] for number in ids], part="plain")

    def parts(self, evaluation: Evaluation) -> ForgetSplit:
        """Return the sequences to train on and those to measure; of fewer than two, none to train on."""
        import torch

        forget = evaluation.testbed.forget
        count = min(len(forget) - 1, max(1, round(self.config.share * len(forget))))
        order = torch.randperm(len(forget), generator=evaluation.context.generator(self.name))
        taught, rest = (rows.sort().values for rows in order.split([max(0, count), len(forget) - max(0, count)]))
        return ForgetSplit(forget.select(taught), forget.select(rest))

    def course(self, evaluation: Evaluation, parts: ForgetSplit) -> ExtractionCurve:
        """Return what came of training a copy of the model, in float32, on `parts.taught`."""
        import torch

        testbed = evaluation.testbed
        attacked: Any = copy.deepcopy(testbed.model).float().requires_grad_(requires_grad=True)
        measured = dataclasses.replace(testbed, model=attacked, forget=parts.rest)
        course = ExtractionCurve(measured, evaluation.context, self.window(testbed), self.config.steps)
        recipe = self.recipe(testbed)
        with torch.enable_grad():
            train(
                attacked, parts.taught, recipe, evaluation.context,
                stop_when=course.look, stop_every=1, description=self.name,
            )  # fmt: skip
        return course

    def recipe(self, testbed: Testbed) -> TrainingRecipe:
        """Return the testbed's recipe at a constant rate, with the attack's own settings."""
        own = self.config.model_dump(include={"learning_rate", "batch_size"}, exclude_none=True)
        fixed = {"schedule": "constant", "warmup_steps": 0, "max_steps": self.config.steps, "epochs": self.config.steps}
        gentle = {"learning_rate": testbed.recipe.learning_rate / 10}
        return TrainingRecipe(**testbed.recipe.model_dump() | fixed | gentle | own)


class ExtractionCurve:
    """Extraction at moments of a training, and the best of them for each set.

    Args:
        testbed: with the model that is being trained.
        context: shows progress.
        window: the lengths of the check.
        steps: optimizer steps of the training.
    """

    def __init__(self, testbed: Testbed, context: Context, window: Window, steps: int) -> None:
        self.testbed, self.context, self.window = testbed, context, window
        self.moments = {2**power for power in range(steps.bit_length()) if 2**power <= steps} | {steps}
        self.best: dict[str, tuple[list[int], list[float]]] = {}
        self._step = 0

    def look(self, _: int) -> bool:
        """Measure the model where this step is one of the moments; never ask the training to end."""
        self._step += 1
        if self._step in self.moments:
            evaluation = Evaluation(self.testbed, self.context)
            for name in forget_sets(self.testbed):
                found = extractable(evaluation, name, self.window)
                if name not in self.best or sum(found[1]) > sum(self.best[name][1]):
                    self.best[name] = found
        return False


class ForgetSplit(NamedTuple):
    """The forget set in two."""

    taught: Sequences
    rest: Sequences
