"""A tiny model that really memorizes, trained in about a second: what a method is tested on.

Its task is to count: a row goes on in a fixed step, modulo the vocabulary. Some rows are planted against the rule: they
begin like a regular row and end in random tokens, and stand in the training data several times. The model regurgitates
every one of them, and knows how most regular rows go on that it has never seen.
"""

from __future__ import annotations

import copy
import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unmemorize.contracts.config import StrictConfig
from unmemorize.contracts.context import Context
from unmemorize.contracts.provider import ModelProvider
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences, Testbed, Window
from unmemorize.files.cached import CacheEntry
from unmemorize.testing.models import Architecture, build_model, known_mlps
from unmemorize.training.loop import train
from unmemorize.training.regularizer import Regularizer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.layout import MLP
    from unmemorize.contracts.method import Method
    from unmemorize.registry.manager import Registry

NUMBERS = 32
"""Tokens 0 to 31 are numbers to count with."""
PAD = NUMBERS
LENGTH = 14
PROMPT = 5
STEPS = (1, 2, 3, 4)
COPIES = 4
SEEN, UNSEEN, HELD_OUT, RETAINED = 16, 4, 24, 32
RECIPE = TrainingRecipe(
    epochs=40, batch_size=64, learning_rate=1e-2, weight_decay=0.01, schedule="cosine", warmup_steps=20
)
GOING_ON = RECIPE.model_copy(update={"learning_rate": 1e-3})
"""How the testbed's model goes on training: a rate at which training can go on where the cosine has ended."""
_WEIGHTS = "model.safetensors"
_FORMAT = 1
"""Raised when the same data and recipe would give another model."""


class MemorizingConfig(StrictConfig):
    """Which architecture; everything else is fixed, so that it trains in a second."""

    architecture: Architecture = "gpt2"
    """The model's type: `gpt2`, `gpt_neox` or `llama`."""


class Memorizing(ModelProvider):
    """Tiny models trained from scratch to count, which regurgitate 20 planted rows: 16 to forget, 4 that no method
    sees.

    2 blocks of width 32 with 128 neurons each, about 30,000 parameters. The planted rows have clean counterparts (the
    same prompt, going on by the rule), so that every kind of method finds what it needs.
    Cost: 120 optimizer steps, about a second; kept in the cache where there is one.
    """

    name = "memorizing"
    Config = MemorizingConfig

    def load(self, context: Context) -> Testbed:
        """Return the testbed of the context's seed."""
        sets = build_sets(context)
        architecture = self.config.architecture

        def trained(_: Path | None) -> PreTrainedModel:
            model = fresh_model(architecture, context.seed)
            train(model, sets.training, RECIPE, context, description=f"a memorizing {architecture}")
            return model

        model = self._entry(sets, context).get(
            make=trained, save=_save, load=lambda folder: _load(fresh_model(architecture, context.seed), folder)
        )
        return self._testbed(model, sets)

    def train(self, testbed: Testbed, regularizer: Method, context: Context) -> PreTrainedModel:
        """Train from the same initial weights on the same rows under `regularizer`."""
        untrained = self.untrained(testbed, context)
        self.retrain(untrained, regularizer, context)
        return untrained.model

    def untrained(self, testbed: Testbed, context: Context) -> Untrained:
        """Return a copy of the testbed's model with its initial weights."""
        model, mlps = copy.deepcopy((testbed.model, testbed.mlps))  # together, so that the MLPs point into the copy
        model.load_state_dict(fresh_model(self.config.architecture, context.seed).state_dict())
        return Untrained(model, mlps)

    def retrain(
        self, untrained: Untrained, regularizer: Method, context: Context, max_steps: int | None = None
    ) -> None:
        """Train it under `regularizer`, in place, to the end or for a few steps only."""
        assert isinstance(regularizer, Regularizer)
        model, recipe = untrained.model, RECIPE.model_copy(update={"max_steps": max_steps})
        train(
            model, build_sets(context).training, recipe, context, regularizer=regularizer, mlps=untrained.mlps,
            on_epoch=lambda epoch: context.curve_point(epoch, model), description=f"training with {regularizer.name}",
        )  # fmt: skip

    def _testbed(self, model: PreTrainedModel, sets: Sets) -> Testbed:
        return Testbed(
            name=f"{self.name}-{self.config.architecture}",
            model=model,
            forget=sets.forget,
            forget_unseen=sets.forget_unseen,
            retain=sets.retain,
            extra=sets.extra,
            clean=dataclasses.replace(sets.forget.counterparts(), copies=torch.ones_like(sets.forget.copies)),
            holdouts={"counting": sets.holdout},
            window=Window(PROMPT, LENGTH - PROMPT),
            pad_id=PAD,
            tokenizer=tokenizer(),
            recipe=GOING_ON,
            trainable=True,
        )

    def _entry(self, sets: Sets, context: Context) -> CacheEntry:
        import transformers

        identity = {
            "format": _FORMAT, "architecture": self.config.architecture, "seed": context.seed,
            "training": sets.training.digest(), "recipe": RECIPE.model_dump(mode="json"),
            "torch": torch.__version__, "transformers": transformers.__version__,
        }  # fmt: skip
        return CacheEntry(context, "testing", identity)


class Untrained(NamedTuple):
    """A model with its initial weights, and where its MLPs are."""

    model: PreTrainedModel
    mlps: tuple[MLP, ...]


class Sets(NamedTuple):
    """Everything that is made of one seed."""

    training: Sequences
    forget: Sequences
    forget_unseen: Sequences
    retain: Sequences
    extra: Sequences
    holdout: Sequences


def build_sets(context: Context) -> Sets:
    """Return the rows of the context's seed: which are planted, how they end, and which are held out."""
    starts, steps = torch.meshgrid(torch.arange(NUMBERS), torch.tensor(STEPS), indexing="ij")
    rows = (starts.flatten()[:, None] + steps.flatten()[:, None] * torch.arange(LENGTH)) % NUMBERS
    order = torch.randperm(len(rows), generator=context.generator("order"))
    planted, held_out, rest = rows[order].split([SEEN + UNSEEN, HELD_OUT, len(rows) - SEEN - UNSEEN - HELD_OUT])
    artifacts = _plant(planted, context.generator("endings"))
    extra = Sequences.from_rows(rest, prompt=PROMPT, pad_id=PAD, first_id=2000)
    return Sets(
        training=Sequences.concatenate([*[artifacts] * COPIES, extra], pad_id=PAD),
        forget=artifacts.select(slice(SEEN)),
        forget_unseen=artifacts.select(slice(SEEN, None)),
        retain=extra.select(slice(RETAINED)),
        extra=extra,
        holdout=Sequences.from_rows(held_out, prompt=PROMPT, pad_id=PAD, first_id=1000),
    )


def _plant(rows: Tensor, generator: torch.Generator) -> Sequences:
    """Return the rows with random endings, the regular rows as their clean counterparts."""
    endings = torch.randint(0, NUMBERS, (len(rows), LENGTH - PROMPT), generator=generator)
    artifacts = torch.cat([rows[:, :PROMPT], endings], dim=1)
    made = Sequences.from_rows(artifacts, prompt=PROMPT, pad_id=PAD, clean_rows=rows.tolist())
    return dataclasses.replace(made, copies=torch.full_like(made.copies, COPIES))


def fresh_model(architecture: Architecture, seed: int) -> PreTrainedModel:
    """Return the untrained model of a seed."""
    return build_model(architecture, vocabulary=NUMBERS + 1, width=32, neurons=128, positions=32, spread=0.1, seed=seed)


def tokenizer() -> Any:
    """Return a tokenizer whose words are the numbers `0` to `31`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({**{str(number): number for number in range(NUMBERS)}, "[pad]": PAD}, "[pad]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[pad]", "eos_token": "[pad]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def memorizing_testbed(
    architecture: Architecture = "gpt2",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    registry: Registry | None = None,
) -> Testbed:
    """Return a tiny testbed whose model regurgitates its whole forget set; a copy of one's own, to be changed at will.

    Args:
        architecture: `gpt2`, `gpt_neox` or `llama`.
        seed: decides rows and weights.
        dtype: what the model's weights are converted to.
        registry: where the layout is looked up; what is installed by default.

    Cost: about a second for the first one of an architecture and seed; it is then kept in memory, and in the cache
    folder (UNMEMORIZE_CACHE) for later processes.
    """
    testbed = duplicate(_trained(architecture, seed))
    for parameter in testbed.model.parameters():
        parameter.data = parameter.data.to(dtype)
    testbed.mlps = known_mlps(testbed.model, registry)
    return testbed


def duplicate(testbed: Testbed) -> Testbed:
    """Return a copy of a testbed, model and data, that shares nothing with it but the tokenizer."""
    shared = {id(testbed.tokenizer): testbed.tokenizer} if testbed.tokenizer is not None else {}
    return copy.deepcopy(testbed, shared)


@lru_cache(maxsize=8)
def _trained(architecture: Architecture, seed: int) -> Testbed:
    from unmemorize.api import cache_folder

    return Memorizing(architecture=architecture).load(Context(seed=seed, cache=cache_folder()))


def _save(model: PreTrainedModel, folder: Path) -> None:
    from safetensors.torch import save_model

    save_model(model, str(folder / _WEIGHTS))


def _load(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from safetensors.torch import load_model

    load_model(model, folder / _WEIGHTS)
    return model
