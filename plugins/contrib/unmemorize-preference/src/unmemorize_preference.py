"""Fine-tuning away from the forget set: gradient difference, and negative preference optimization.

Each step draws a batch of the forget set M and as many rows of the retain set R, and minimizes

    gradient_difference   -mean l(x) + alpha * mean l(r)                     (Liu et al. 2022; Maini et al. 2024)
    npo                   2/beta * mean log(1 + (p(x)/p_0(x))^beta) - alpha * mean log p(r)   (Zhang et al. 2024)

over x in the one and r in the other; l = mean cross-entropy of a row's tokens, p = the probability of the whole row,
p_0 = that under the model at the start. Ascent on l has no floor and ends in collapse; the gradient of npo is that of
ascent on -log p times 2 p^beta / (p^beta + p_0^beta), and fades for rows that are already forgotten. Both end after
the first epoch after which the forget set is no longer regurgitated (as Jang et al. 2023 end theirs, arXiv 2210.01504).
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from unmemorize import (
    Context,
    Cost,
    Evaluation,
    FineTuning,
    FineTuningConfig,
    Method,
    Sequences,
    StrictConfig,
    Testbed,
    TrainingObjective,
    TrainingStep,
    hookimpl,
)
from unmemorize.toolkit import Sizes, count_shuffled_tokens, count_tokens, shuffled_rows, token_losses


class PreferenceConfig(FineTuningConfig):
    """Small steps that end as soon as they are no longer needed."""

    epochs: Annotated[int, Field(ge=1)] = 50
    """Largest number of passes over the forget set."""
    learning_rate: Annotated[float, Field(gt=0)] | None = 1e-4
    """Constant learning rate; Maini et al. 2024 (TOFU) take 1e-5 for models of a billion parameters and more."""
    batch_size: Annotated[int, Field(ge=1)] | None = 16
    """Sequences of the forget set per optimizer step; as many of the retain set are added."""
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    """alpha, the weight of the retain set."""
    tokens: Literal["all", "suffix"] = "suffix"
    """Which real tokens of a row count: those of the suffix (as the answers in TOFU), or all."""
    stop_at: Annotated[float, Field(ge=0, lt=1)] | None = 0.05
    """Stop after the first epoch that leaves at most this share of the forget set extractable; none: run all epochs."""


class NPOConfig(PreferenceConfig):
    """Default beta: Zhang et al. 2024."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Inverse temperature: towards 0 the objective becomes gradient ascent."""


class Rows(NamedTuple):
    """The model's losses on some rows. B rows."""

    ids: list[int]
    sums: Tensor
    """(B,) float32 summed cross-entropy of the tokens that count: -log p."""
    counts: Tensor
    """(B,) number of tokens that count."""

    @property
    def means(self) -> Tensor:
        """(B,) mean cross-entropy of the tokens that count."""
        return self.sums / self.counts.clamp(min=1)


class Preference(FineTuning):
    """What both methods share: steps on pairs of batches, the retain term, and the early end."""

    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    Config: ClassVar[type[StrictConfig]] = PreferenceConfig

    def sequences(self, testbed: Testbed) -> Sequences:
        """Return the forget set: an epoch is one pass over it."""
        return testbed.forget

    def objective(self, testbed: Testbed, context: Context) -> TrainingObjective:
        """Return the two-sided objective."""
        assert testbed.retain is not None
        recipe = self.recipe(testbed)
        size = min(recipe.batch_size, len(testbed.forget))
        steps = recipe.epochs * -(-len(testbed.forget) // size)
        retain = shuffled_rows(testbed.retain, size, steps, context.generator(self.name, "retain"))
        self.prepare(testbed, context)
        return Balance(self, testbed, retain)

    def prepare(self, testbed: Testbed, context: Context) -> None:
        """Look at the model as it is at the start."""

    def rows(self, batch: Sequences, values: Tensor, mask: Tensor) -> Rows:
        """Return the rows of a batch, from the (B, T - 1) losses of all of its tokens and the mask of the real ones."""
        counted = mask if self.config.tokens == "all" else mask & batch.suffix()[:, 1:].to(mask.device)
        return Rows(batch.ids.tolist(), (values * counted).sum(dim=1), counted.sum(dim=1))

    def cost(self, testbed: Testbed) -> Cost:
        """Return what all epochs take; most runs end earlier. The optimizer's state is counted as Adam's."""
        assert testbed.retain is not None
        recipe, size = self.recipe(testbed), Sizes.of(testbed)
        rows = len(testbed.forget)
        given = count_tokens(testbed.forget, recipe.batch_size)
        steps = recipe.epochs * -(-rows // recipe.batch_size)
        epochs = min(1.0, (recipe.max_steps or steps) / steps) * recipe.epochs
        longest = int(max(testbed.forget.lengths.max(), testbed.retain.lengths.max())) - 1
        return Cost(
            forward_tokens=(epochs + 1) * given.tokens,
            training_tokens=epochs * (given.tokens + count_shuffled_tokens(rows, testbed.retain)),
            sweeps=4 * min(steps, recipe.max_steps or steps) * size.parameters,
            held_tokens=2 * min(recipe.batch_size, rows) * longest,
            device_bytes=(12 if size.weight_bytes >= 4 else 16) * size.parameters,
            advice="set a smaller batch_size, fewer epochs or max_steps, or an optimizer with less state",
        )

    @abstractmethod
    def balance(self, forget: Rows, retain: Rows) -> Tensor:
        """Return the scalar to minimize."""


class Balance(TrainingObjective):
    """A method's objective, on the forget rows of a step and as many retain rows."""

    def __init__(self, method: Preference, testbed: Testbed, retain: Iterator[Sequences]) -> None:
        self.name = method.name  # type: ignore[misc]
        self._method, self._testbed, self._retain = method, testbed, retain

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the objective of one step."""
        batch = next(self._retain)
        retain = token_losses(step.model, batch, self._method.config.tokens)
        return self._method.balance(
            self._method.rows(step.batch, step.token_losses, step.mask), self._method.rows(batch, *retain)
        )

    def done(self) -> bool:
        """Return whether at most the share `stop_at` of the forget set is still regurgitated."""
        stop_at = self._method.config.stop_at
        return stop_at is not None and extractable(self._testbed) <= stop_at


def extractable(testbed: Testbed) -> float:
    """Return the share of the forget set that the model regurgitates, with the testbed's own window."""
    shown = dataclasses.replace(testbed, holdouts={}, forget_unseen=None)  # what nobody is shown
    evaluation = Evaluation(shown)
    hits = evaluation.teacher_forced_window("forget", testbed.window).hits
    wanted = evaluation.probe("forget", testbed.window).rows.suffix()[:, 1:]
    return float((hits | ~wanted).all(dim=1).float().mean())


class GradientDifference(Preference):
    """Raise the loss on the forget set and lower it on the retain set, in equal measure.

    Nothing bounds the first term: `stop_at` ends the training before it takes over.
    Cost: per epoch a forward and backward pass over the forget set and as many rows of the retain set, and a forward
    pass over the forget set to see what is left; at most `epochs` of them. Memory: as fine-tuning (gradients and the
    optimizer's state, 12 bytes per parameter for AdamW in float32), and the activations of two batches.
    """

    name = "gradient_difference"
    paper = "Liu et al. 2022, arXiv 2203.12817; Maini et al. 2024, arXiv 2401.06121"

    def balance(self, forget: Rows, retain: Rows) -> Tensor:
        """Return -mean l(x) + alpha * mean l(r)."""
        return self.config.retain_weight * retain.means.mean() - forget.means.mean()


class NPO(Preference):
    """Negative preference optimization: the forget set is the rejected answer of a preference pair without a winner.

    p_0 is kept as one number a row, from one pass before the first step: no second model.
    Cost: one forward pass over the forget set, then as `gradient_difference`. Memory: as that.
    """

    name = "npo"
    Config = NPOConfig
    paper = "Zhang et al. 2024, arXiv 2404.05868"

    @torch.no_grad()
    def prepare(self, testbed: Testbed, context: Context) -> None:
        """Keep -log p_0 of every forget row."""
        testbed.model.eval()
        self._start: dict[int, float] = {}
        batches = list(testbed.forget.batches(self.recipe(testbed).batch_size))
        for batch in context.track(batches, f"{self.name}: reference"):
            rows = self.rows(batch, *token_losses(testbed.model, batch, self.config.tokens))
            self._start |= dict(zip(rows.ids, rows.sums.tolist(), strict=True))

    def balance(self, forget: Rows, retain: Rows) -> Tensor:
        """Return 2/beta * mean log(1 + (p(x)/p_0(x))^beta) - alpha * mean log p(r)."""
        start = torch.tensor([self._start[i] for i in forget.ids]).to(forget.sums)
        away = softplus(self.config.beta * (start - forget.sums)).mean() * 2 / self.config.beta
        return away + self.config.retain_weight * retain.sums.mean()


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the methods of this package."""
    return [GradientDifference, NPO]
