"""What TinyMem's testbeds have in common: the model is trained once, kept, and trained again under regularizers."""

from __future__ import annotations

import copy
import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from unmemorize import Checkpoint, Context, Method, ModelProvider, Regularizer, Testbed, train
from unmemorize_plugins.providers.tinymem.cache import ModelCache
from unmemorize_plugins.providers.tinymem.sets import Sets

_FORMAT = 1
"""Raised when the same config, seed and data would give another model."""
_CURVE = 10
"""Points of a training curve at most: each costs a measurement."""


class TrainedFromScratch(ModelProvider):
    """A provider whose model is trained here: say on which `sets`, which `fresh_model`, and make the `testbed`."""

    @abstractmethod
    def sets(self, context: Context) -> Sets:
        """Return the data of the context's seed."""

    @abstractmethod
    def fresh_model(self, context: Context) -> PreTrainedModel:
        """Return an untrained model in eval mode; its weights depend on the config and the context's seed only."""

    @abstractmethod
    def testbed(self, model: PreTrainedModel, sets: Sets, facts: dict[str, Any]) -> Testbed:
        """Return the testbed around the trained model."""

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
        measured = curve_epochs(self.config.recipe.epochs)

        def on_epoch(epoch: int) -> None:
            if epoch in measured:
                context.curve_point(epoch, model)

        train(
            model, self.sets(context).training, self.config.recipe, context,
            regularizer=regularizer, mlps=mlps, description=f"training with {regularizer.name}", on_epoch=on_epoch,
        )  # fmt: skip
        return model

    def _trained(self, model: PreTrainedModel, sets: Sets, context: Context) -> dict[str, Any]:
        """Give `model` its trained weights, from the cache if it has them; return the facts of the training."""
        if context.cache is None:
            return self._train_from_scratch(model, sets, context, None)
        folder = context.cache / "testbeds" / self._key(sets, context)
        cache = ModelCache(folder)
        facts = cache.read(model)
        if facts is None:
            # A damaged file may have been read in part, so training starts from the initial weights again.
            model.load_state_dict(self.fresh_model(context).state_dict())
            facts = self._train_from_scratch(model, sets, context, folder.with_suffix(".checkpoint"))
            cache.write(model, facts)
        return facts

    def _train_from_scratch(
        self, model: PreTrainedModel, sets: Sets, context: Context, unfinished: Path | None
    ) -> dict[str, Any]:
        checkpoint = None if unfinished is None else Checkpoint(unfinished)
        report = train(
            model, sets.training, self.config.recipe, context,
            checkpoint=checkpoint, description=f"training {self.name}",
        )  # fmt: skip
        return {
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

    def _key(self, sets: Sets, context: Context) -> str:
        """Return a hash of everything that decides the trained weights."""
        pointed_at = sorted(self.fingerprint().items())
        parts = (_FORMAT, self.config.model_dump_json(), context.seed, sets.training.digest(), *pointed_at)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def curve_epochs(epochs: int) -> frozenset[int]:
    """Return the epochs after which a training run of `epochs` is measured: evenly spaced, the last among them."""
    points = min(epochs, _CURVE)
    return frozenset(round(epochs * point / points) for point in range(1, points + 1))
