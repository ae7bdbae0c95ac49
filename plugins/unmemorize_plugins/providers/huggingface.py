"""The provider `huggingface`: any causal language model, and the user's own files of what it memorized."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from unmemorize import Context, ModelProvider, StrictConfig, Testbed, TrainingRecipe
from unmemorize.toolkit import (
    ModelSource,
    SequenceSource,
    model_fingerprint,
    open_model,
    sequences_fingerprint,
    testbed_of,
)
from unmemorize_plugins.providers.searched import SearchedTexts, found_file


class HuggingFaceConfig(SequenceSource, ModelSource):
    """Which model, what it has memorized, and on which text its utility is measured."""

    forget: str = ""
    """The memorized sequences: a file of sequences; or leave it out and say `find`."""
    find: SearchedTexts | None = None
    """Texts that are searched for what the model regurgitates, in place of `forget`: `find = { texts = "FOLDER" }`."""
    recipe: TrainingRecipe = TrainingRecipe.of_pretrained()
    """How methods that go on training do so."""

    @model_validator(mode="after")
    def _says_what_is_forgotten(self) -> Self:
        if bool(self.forget) == (self.find is not None):
            raise ValueError("say either forget (a file of sequences) or find (texts to be searched)")
        return self


class HuggingFace(ModelProvider):
    """A causal language model from the hub, a folder or a GGUF file, with sequences from files.

    Rows of token ids need no tokenizer. Neuron and weight methods need to know the model's MLPs; where neither a layout
    nor its structure tells, they say so and are skipped, and fine-tuning methods work. Rows are padded on the right and
    padding is never attended to, so that a tokenizer without padding is no obstacle.

    Memory: the model, on the devices that `device_map` says. A model over several devices has not been run here.
    """

    name: ClassVar[str] = "huggingface"
    Config: ClassVar[type[StrictConfig]] = HuggingFaceConfig

    config: HuggingFaceConfig

    def fingerprint(self) -> dict[str, str]:
        """Return the model's commit or content hash, and a hash of every file of sequences."""
        hashes = {"model": model_fingerprint(self.config)}
        if self.config.find is None:
            return hashes | sequences_fingerprint(self.config)
        others = self.config.model_copy(update={"forget": None})
        return hashes | {"find": self.config.find.fingerprint()} | sequences_fingerprint(others)

    def load(self, context: Context) -> Testbed:
        """Return the model and the sets of the context's seed."""
        opened = open_model(self.config, device=context.device, cache=context.cache)
        if self.config.find is None:
            return testbed_of(self, opened, self.config, context)
        model = f"{model_fingerprint(self.config)} {opened.model.dtype}"
        special = self.config.find.special_tokens and self.config.special_tokens
        searched = self.config.find.model_copy(update={"special_tokens": special})
        with found_file(searched, opened, model, context) as file:
            chosen = {"forget": str(file), "marked": "keep"}  # what is left out is said under `find`
            return testbed_of(self, opened, self.config.model_copy(update=chosen), context)
