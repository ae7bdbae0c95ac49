"""The shared forward and generation passes that metrics draw on."""

from unmemorize.evaluation.evaluate import evaluate
from unmemorize.evaluation.generation import Generated
from unmemorize.evaluation.passes import Evaluation, ExtractionCheck, TeacherForced
from unmemorize.evaluation.probe import Probe

__all__ = ["Evaluation", "ExtractionCheck", "Generated", "Probe", "TeacherForced", "evaluate"]
