"""What testbeds trained here have in common: trained once, kept, and trained again under regularizers."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from unmemorize import Context, Method, ModelProvider, Regularizer, Sequences, Testbed, TrainingRecipe
from unmemorize.toolkit import Checkpoint, train
from unmemorize_plugins.providers.model_cache import ModelCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMAT = 1
"""Raised when the same config, seed and data would give another model."""
_CURVE = 10
"""Points of a training curve at most: each costs a measurement."""


class TrainingSets(Protocol):
    """The sets of a testbed, as far as its training must know them."""

    @property
    def training(self) -> Sequences:
        """What the model is trained on, row by row."""

    @property
    def forget(self) -> Sequences:
        """The sequences to be memorized that methods are shown."""

    @property
    def forget_unseen(self) -> Sequences | None:
        """Those that no method is shown."""


class Stop(NamedTuple):
    """When training ends before its recipe says so."""

    when: Callable[[int], bool]
    every: int
    """Optimizer steps between two questions."""


S = TypeVar("S", bound=TrainingSets)


class TrainedHere(ModelProvider, Generic[S]):
    """A provider whose model is trained here: say on which `sets`, which `fresh_model`, and make the `testbed`."""

    checkpoint_every = 30.0
    """Seconds between two checkpoints of the training."""

    @abstractmethod
    def sets(self, context: Context) -> S:
        """Return the data of the context's seed."""

    @abstractmethod
    def fresh_model(self, context: Context) -> PreTrainedModel:
        """Return the model before training, in eval mode; it depends on the config and the context's seed only."""

    @abstractmethod
    def testbed(self, model: PreTrainedModel, sets: S, facts: dict[str, Any]) -> Testbed:
        """Return the testbed around the trained model."""

    def facts_before(self, model: PreTrainedModel, sets: S) -> dict[str, Any]:
        """Return JSON-ready facts about the model before its training."""
        return {}

    def facts_after(self, model: PreTrainedModel, sets: S) -> dict[str, Any]:
        """Return JSON-ready facts about the trained model."""
        return {}

    def stop(self, model: PreTrainedModel, sets: S) -> Stop | None:
        """Return when training ends early; by default never."""
        return None

    def recipe_again(self, testbed: Testbed) -> TrainingRecipe:
        """Return how the model is trained again under a regularizer: as the testbed's was."""
        recipe: TrainingRecipe = self.config.recipe
        return recipe

    def ready(self, context: Context) -> bool:
        """Return whether the cache has the model of the context's seed."""
        return context.cache is not None and self._folder(self.sets(context), context, context.cache).is_dir()

    def load(self, context: Context) -> Testbed:
        """Return the testbed of the context's seed, trained now unless the cache has it."""
        sets = self.sets(context)
        model = self.fresh_model(context)
        return self.testbed(model, sets, self._trained(model, sets, context))

    def train(self, testbed: Testbed, regularizer: Method, context: Context) -> PreTrainedModel:
        """Train from the same initial weights on the same data under `regularizer`; the testbed's model is not touched.

        The curve gets at most ten points, evenly spaced; the last one is about the finished model.
        """
        assert isinstance(regularizer, Regularizer)
        # Copied together, the MLPs point into the copied model.
        model, mlps = copy.deepcopy((testbed.model, testbed.mlps))
        model.load_state_dict(self.fresh_model(context).state_dict())
        recipe = self.recipe_again(testbed)
        measured = curve_epochs(recipe.epochs)

        def on_epoch(epoch: int) -> None:
            if epoch in measured:
                context.curve_point(epoch, model)

        train(
            model, self.sets(context).training, recipe, context,
            regularizer=regularizer, mlps=mlps, description=f"training with {regularizer.name}", on_epoch=on_epoch,
        )  # fmt: skip
        return model

    def _trained(self, model: PreTrainedModel, sets: S, context: Context) -> dict[str, Any]:
        """Give `model` its trained weights, from the cache if it has them; return the facts of the training."""
        if context.cache is None:
            return self._train_now(model, sets, context, None)
        folder = self._folder(sets, context, context.cache)
        cache = ModelCache(folder)
        facts = cache.read(model)
        if facts is None:
            # A damaged file may have been read in part, so training starts from the initial weights again.
            model.load_state_dict(self.fresh_model(context).state_dict())
            facts = self._train_now(model, sets, context, folder.with_suffix(".checkpoint"))
            cache.write(model, facts)
        return facts

    def _train_now(self, model: PreTrainedModel, sets: S, context: Context, unfinished: Path | None) -> dict[str, Any]:
        import torch

        checkpoint = None if unfinished is None else Checkpoint(unfinished, every=self.checkpoint_every)
        before = self.facts_before(model, sets)
        stop = self.stop(model, sets)
        report = train(
            model, sets.training, self.config.recipe, context, checkpoint=checkpoint,
            stop_when=stop and stop.when, stop_every=stop and stop.every, description=f"training {self.name}",
        )  # fmt: skip
        return before | {
            "training_seconds": round(report.seconds, 3),
            "epochs": report.epochs,
            "steps": report.steps,
            "final_loss": report.final_loss,
            "training_sequences": len(sets.training),
            "training_tokens": report.tokens,
            "artifact_sequences": len(sets.forget) + len(sets.forget_unseen or ()),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trained_on": context.device,
            "torch": torch.__version__,
            **self.facts_after(model, sets),
        }

    def _folder(self, sets: S, context: Context, cache: Path) -> Path:
        return cache / "testbeds" / self._key(sets, context)

    def _key(self, sets: S, context: Context) -> str:
        """Return a hash of everything that decides the trained weights."""
        pointed_at = sorted(self.fingerprint().items())
        parts = (_FORMAT, self.config.model_dump_json(), context.seed, sets.training.digest(), *pointed_at)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def curve_epochs(epochs: int) -> frozenset[int]:
    """Return the epochs after which a training run of `epochs` is measured: evenly spaced, the last among them."""
    points = min(epochs, _CURVE)
    return frozenset(round(epochs * point / points) for point in range(1, points + 1))
