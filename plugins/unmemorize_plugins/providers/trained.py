"""What testbeds trained here have in common: trained once, kept, and trained again under regularizers."""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from unmemorize import Context, Method, ModelProvider, Regularizer, Sequences, Testbed, TrainingRecipe
from unmemorize.toolkit import CacheEntry, Checkpoint, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FORMAT = 1
"""Raised when the same config, seed and data would give another model."""
_WEIGHTS, _FACTS = "model.safetensors", "facts.json"
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


class Trained(NamedTuple):
    """A model that is trained, and JSON-ready facts about its training."""

    model: PreTrainedModel
    facts: dict[str, Any]


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
        return self._entry(self.sets(context), context).exists()

    def load(self, context: Context) -> Testbed:
        """Return the testbed of the context's seed, trained now unless the cache has it."""
        sets = self.sets(context)
        trained = self._entry(sets, context).get(
            make=lambda unfinished: self._trained(sets, context, unfinished),
            save=_save,
            load=lambda folder: _load(self.fresh_model(context), folder),
        )
        return self.testbed(trained.model, sets, trained.facts)

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

    def _entry(self, sets: S, context: Context) -> CacheEntry:
        """Return where the cache keeps the model, by everything that decides its weights."""
        identity = {
            "format": _FORMAT,
            "provider": self.name,
            "config": self.config.model_dump(mode="json"),
            "seed": context.seed,
            "training": sets.training.digest(),
            "fingerprint": self.fingerprint(),
        }
        return CacheEntry(context, "testbeds", identity)

    def _trained(self, sets: S, context: Context, unfinished: Path | None) -> Trained:
        """Train the model now; a folder of `unfinished` work is where it goes on from."""
        import torch

        model = self.fresh_model(context)
        every = self.checkpoint_every
        checkpoint = None if unfinished is None else Checkpoint(unfinished / "checkpoint", every=every)
        before = self.facts_before(model, sets)
        stop = self.stop(model, sets)
        report = train(
            model, sets.training, self.config.recipe, context, checkpoint=checkpoint,
            stop_when=stop and stop.when, stop_every=stop and stop.every, description=f"training {self.name}",
        )  # fmt: skip
        facts = {
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
        }
        return Trained(model, before | facts | self.facts_after(model, sets))


def _save(trained: Trained, folder: Path) -> None:
    from safetensors.torch import save_model

    save_model(trained.model, str(folder / _WEIGHTS))
    (folder / _FACTS).write_text(json.dumps(trained.facts, indent=1), encoding="utf-8")


def _load(model: PreTrainedModel, folder: Path) -> Trained:
    from safetensors.torch import load_model

    load_model(model, folder / _WEIGHTS)
    return Trained(model, json.loads((folder / _FACTS).read_text(encoding="utf-8")))


def curve_epochs(epochs: int) -> frozenset[int]:
    """Return the epochs after which a training run of `epochs` is measured: evenly spaced, the last among them."""
    points = min(epochs, _CURVE)
    return frozenset(round(epochs * point / points) for point in range(1, points + 1))
