"""How a model is trained: the optimizer and its settings, as one frozen config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unmemorize.contracts.config import StrictConfig


class TrainingRecipe(StrictConfig):
    """Everything that decides a training run, apart from the data and the seed.

    Defaults: TinyMem's (Sakarvadia et al. 2025, appendix).
    """

    epochs: Annotated[int, Field(ge=1)] = 25
    """Passes over the training data."""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Sequences per optimizer step."""
    optimizer: str = "AdamW"
    """Name of a class in `torch.optim`."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate moves: constant, or down to `final_learning_rate` over the whole run."""
    final_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """Where a linear or cosine schedule ends."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps over which the learning rate rises linearly from 0."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's moment decays; ignored by optimizers without betas."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay, on every parameter as in the paper's recipe."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient, or none."""
    pooled_batches: Annotated[int, Field(ge=1)] = 16
    """An epoch's shuffled rows are sorted by length inside pools of this many batches: less padding; 1: none."""

    @classmethod
    def of_pretrained(cls) -> TrainingRecipe:
        """Return how a pre-trained model goes on learning: gently, so that it stays what it is."""
        return cls(epochs=3, batch_size=8, learning_rate=2e-5, betas=(0.9, 0.95), weight_decay=0.0, gradient_clip=1.0)
