from .api import (
    Mitigation as Mitigation,
    Results as Results,
    export as export,
    find as find,
    load_results as load_results,
    mitigate as mitigate,
    run as run,
)
from .contracts.config import StrictConfig as StrictConfig
from .contracts.context import Context as Context, MethodReport as MethodReport, Progress as Progress
from .contracts.cost import Cost as Cost
from .contracts.executor import ExecutorFactory as ExecutorFactory
from .contracts.layout import MLP as MLP, Layout as Layout, Matrix as Matrix
from .contracts.method import Method as Method
from .contracts.metric import Measurement as Measurement, Reading as Reading
from .contracts.provider import ModelProvider as ModelProvider
from .contracts.recipe import TrainingRecipe as TrainingRecipe
from .contracts.testbed import Sequences as Sequences, Testbed as Testbed, Window as Window
from .editing.edit_file import apply_edits as apply_edits
from .errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    DeadlineExceeded as DeadlineExceeded,
    DivergedError as DivergedError,
    PluginError as PluginError,
    UnmemorizeError as UnmemorizeError,
)
from .evaluation import Evaluation as Evaluation
from .evaluation.metric import Metric as Metric
from .execution.runner import RunReport as RunReport
from .leaderboard.board import Board as Board
from .registry.hookspecs import CellEvent as CellEvent, hookimpl as hookimpl
from .registry.manager import Registry as Registry
from .results.record import Value as Value
from .search.config import FindConfig as FindConfig
from .search.findings import Findings as Findings
from .search.found import FoundWindow as FoundWindow
from .suite.model import Suite as Suite
from .training.finetuning import FineTuning as FineTuning, FineTuningConfig as FineTuningConfig
from .training.regularizer import (
    Regularizer as Regularizer,
    TrainingObjective as TrainingObjective,
    TrainingStep as TrainingStep,
)
from .unlearning.gates import GateConfig as GateConfig, GateUnlearning as GateUnlearning
from .unlearning.neurons import NeuronConfig as NeuronConfig, NeuronUnlearning as NeuronUnlearning
from .unlearning.weights import (
    WeightConfig as WeightConfig,
    WeightRemoval as WeightRemoval,
    WeightUnlearning as WeightUnlearning,
)

__version__: str
