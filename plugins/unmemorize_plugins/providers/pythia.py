"""The provider `pythia`: Pythia models, their training steps, and what they are known to have memorized."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from unmemorize import Context, ModelProvider, StrictConfig, Testbed, TrainingRecipe
from unmemorize.toolkit import (
    ModelLoading,
    ModelSource,
    SequenceSource,
    model_fingerprint,
    open_model,
    sequences_fingerprint,
    testbed_of,
)

MEMORIZED = "memorized-evals"
_EVALS = "hf://datasets/EleutherAI/pythia-memorized-evals/data/{duplication}.{size}-*.parquet"
"""One split per model; the columns are `index`, `tokens` (64 ids: 32 + 32) and a copy of the index."""

_STEPS = (0, *(2**power for power in range(10)), *range(1_000, 144_000, 1_000))
"""The training steps of which there is a checkpoint."""


class PythiaConfig(SequenceSource, ModelLoading):
    """Which Pythia model at which step of its training, and on which sequences.

    Defaults: the paper's (Sakarvadia et al. 2025, section 5): deduplicated models; prompts of 32 tokens.
    """

    size: Literal["70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"] = "2.8b"
    """Parameters of the model."""
    deduped: bool = True
    """Whether it was trained on the deduplicated Pile."""
    step: Annotated[int, Field(ge=0, le=143_000)] = 143_000
    """Training step: 0, 1, 2, 4, ..., 512, then every 1,000. The paper's are 36,000, 72,000, 108,000 and 143,000."""
    forget: Annotated[str, Field(min_length=1)] = MEMORIZED
    """What it memorized: `memorized-evals` (EleutherAI's data set, from the hub), or a file of sequences."""
    retain: str | None = "wikitext-103"
    """Texts whose behaviour is to be preserved: a file of sequences or a corpus."""
    max_rows: Annotated[int, Field(ge=1)] | None = 505
    """Rows of `forget`, and of `forget_unseen`, at most, drawn at random; the data set has up to 2.4 million."""
    recipe: TrainingRecipe = TrainingRecipe.of_pretrained()
    """How methods that go on training do so."""

    @field_validator("step")
    @classmethod
    def _was_saved(cls, step: int) -> int:
        if step not in _STEPS:
            near = sorted(_STEPS, key=lambda saved: abs(saved - step))[:2]
            raise ValueError(f"no checkpoint was saved at step {step}; the nearest are {near[0]} and {near[1]}")
        return step


class Pythia(ModelProvider):
    """A Pythia model (Biderman et al. 2023) and sequences of the Pile that it is known to regurgitate.

    By default the sequences are those of `EleutherAI/pythia-memorized-evals`: 64 tokens, of which the final model,
    given 32, regurgitates 32. At an earlier step it regurgitates fewer of them, as in the paper. The paper's own files
    of 80 tokens (505 sequences per model) are read as `forget = "FILE.pt"`, `suffix = 40`. From the hub a model of 2.8
    billion parameters is a download of 6 GB, and the sequences of a model about 300 MB.

    What has been run: all of this code, on a small GPT-NeoX model with Pythia's configuration and random weights, in a
    folder laid out as the hub's cache, and on a parquet file with the data set's columns. What has not been run: the
    download from the hub, and the real models.
    """

    name: ClassVar[str] = "pythia"
    Config: ClassVar[type[StrictConfig]] = PythiaConfig
    paper: ClassVar[str] = "Biderman et al. 2023, arXiv 2304.01373 (models) and 2304.11158 (memorized sequences)"

    config: PythiaConfig

    def model_source(self) -> ModelSource:
        """Return the model's hub id and revision."""
        config = self.config
        loading = {name: getattr(config, name) for name in ModelLoading.model_fields}
        suffix = "-deduped" if config.deduped else ""
        return ModelSource(model=f"EleutherAI/pythia-{config.size}{suffix}", revision=f"step{config.step}", **loading)

    def sequence_source(self) -> SequenceSource:
        """Return the sequences, the data set spelled out as the files of this model's split."""
        chosen = {name: getattr(self.config, name) for name in SequenceSource.model_fields}
        if chosen["forget"] == MEMORIZED:
            duplication = "deduped" if self.config.deduped else "duped"
            chosen["forget"] = _EVALS.format(duplication=duplication, size=self.config.size)
        return SequenceSource(**chosen)

    def fingerprint(self) -> dict[str, str]:
        """Return the model's commit, and a hash of every file of sequences."""
        return {"model": model_fingerprint(self.model_source()), **sequences_fingerprint(self.sequence_source())}

    def load(self, context: Context) -> Testbed:
        """Return the model and the sets of the context's seed."""
        opened = open_model(self.model_source(), device=context.device, cache=context.cache)
        return testbed_of(self, opened, self.sequence_source(), context)
