"""The provider `tinymem`: arithmetic testbeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from unmemorize import Context, StrictConfig, Testbed
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig
from unmemorize_plugins.providers.tinymem.math_data import PAD
from unmemorize_plugins.providers.tinymem.model import fresh_model
from unmemorize_plugins.providers.tinymem.sets import Sets, build_sets
from unmemorize_plugins.providers.trained import TrainedHere

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TinyMem(TrainedHere[Sets]):
    """Small GPT-2 models trained from scratch on arithmetic, with noise or backdoors planted to be memorized."""

    name: ClassVar[str] = "tinymem"
    Config: ClassVar[type[StrictConfig]] = TinyMemConfig
    paper: ClassVar[str] = "Sakarvadia et al. 2025, Mitigating Memorization in Language Models (ICLR)"

    config: TinyMemConfig

    def sets(self, context: Context) -> Sets:
        """Return the data of the context's seed."""
        return build_sets(self.config, context.seed, lambda label: context.generator("tinymem", label))

    def fresh_model(self, context: Context) -> PreTrainedModel:
        """Return the untrained model of the context's seed."""
        return fresh_model(self.config, context)

    def testbed(self, model: PreTrainedModel, sets: Sets, facts: dict[str, Any]) -> Testbed:
        """Return the testbed around the trained model."""
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
