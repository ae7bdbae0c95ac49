"""The shared forward and generation passes that metrics draw on."""

from unmemorize.evaluation.evaluate import evaluate
from unmemorize.evaluation.passes import Evaluation, Forced

__all__ = ["Evaluation", "Forced", "evaluate"]
