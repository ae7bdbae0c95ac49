"""The provider `tinymem`: makes the data, trains the model once, and trains it again under a regularizer."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from unmemorize import Checkpoint, Context, Method, ModelProvider, Regularizer, StrictConfig, Testbed, train
from unmemorize_plugins.providers.tinymem.cache import ModelCache
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.math_data import PAD
from unmemorize_plugins.providers.tinymem.model import fresh_model
from unmemorize_plugins.providers.tinymem.sets import Sets, build_sets

_FORMAT = 1
"""Raised when the same config, seed and data would give another model."""


class TinyMem(ModelProvider):
    """Small GPT-2 models trained from scratch on arithmetic, with noise or backdoors to be memorized."""

    name: ClassVar[str] = "tinymem"
    Config: ClassVar[type[StrictConfig]] = TinyMemConfig
    paper: ClassVar[str] = "Sakarvadia et al. 2025, Mitigating Memorization in Language Models (ICLR)"

    config: TinyMemConfig

    def load(self, context: Context) -> Testbed:
        """Return the testbed of the context's seed, trained now unless the cache has it."""
        sets = self.sets(context)
        model = fresh_model(self.config, context)
        facts = self._trained(model, sets, context)
        return Testbed(
            name=f"{self.name}-{self.config.task}-{self.config.artifact}-{self.config.size}",
            model=model,
            forget=sets.forget,
            retain=sets.retain,
            forget_unseen=sets.forget_unseen,
            holdouts=sets.holdouts,
            clean=sets.clean,
            extra=sets.extra,
            window=sets.window,
            pad_id=PAD,
            recipe=self.config.recipe,
            trainable=True,
            modality="math",
            facts=facts,
        )

    def train(self, testbed: Testbed, regularizer: Method, context: Context) -> PreTrainedModel:
        """Train under `regularizer`, from the same initial weights on the same data, a model of its own."""
        assert isinstance(regularizer, Regularizer)
        # Copied together, the MLPs point into the copied model.
        model, mlps = copy.deepcopy((testbed.model, testbed.mlps))
        model.load_state_dict(fresh_model(self.config, context).state_dict())
        train(
            model, self.sets(context).training, self.config.recipe, context,
            regularizer=regularizer, mlps=mlps, description=f"training with {regularizer.name}",
            on_epoch=lambda epoch: context.curve_point(epoch, model),
        )  # fmt: skip
        return model

    def sets(self, context: Context) -> Sets:
        """Return the data of the context's seed."""
        return build_sets(self.config, context.seed, lambda label: context.generator("tinymem", label))

    def _trained(self, model: PreTrainedModel, sets: Sets, context: Context) -> dict[str, Any]:
        """Give `model` its trained weights, from the cache if it has them; return the training's facts."""
        if context.cache is None:
            return self._train_from_scratch(model, sets, context, None)
        folder = context.cache / "testbeds" / self._key(sets, context)
        cache = ModelCache(folder)
        facts = cache.read(model)
        if facts is None:
            # A damaged file may have been read in part, so training starts from the initial weights again.
            model.load_state_dict(fresh_model(self.config, context).state_dict())
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
        parts = (_FORMAT, self.config.model_dump_json(), context.seed, sets.training.digest())
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
