"""unmemorize: benchmark, compare and apply mitigations of memorization in language models.

This module is the one public door. What it names in `__all__` is stable; everything else is a room of the house.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmemorize.api import Mitigation, Results, export, find, load_results, mitigate, run
    from unmemorize.contracts.config import StrictConfig
    from unmemorize.contracts.context import Context
    from unmemorize.contracts.cost import Cost, Sizes, count_shuffled_tokens, count_tokens
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.contracts.hookspecs import CellEvent, hookimpl
    from unmemorize.contracts.layout import MLP, Layout, Matrix
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.metric import Measurement, Metric, Reading, mean_over_sequences, wilson_interval
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.contracts.recipe import TrainingRecipe
    from unmemorize.contracts.testbed import Sequences, Testbed, Window
    from unmemorize.data.corpora import Corpus, Document, open_corpus
    from unmemorize.data.duplicates import near_duplicate_groups, without_near_duplicates
    from unmemorize.data.rows import Bounds
    from unmemorize.data.sequences import SequenceSet, read_sequences
    from unmemorize.data.sets import OpenedSequences, SequenceSource, open_sequences, sequences_fingerprint
    from unmemorize.editing.checkpointing import checkpointed_blocks
    from unmemorize.editing.edit_file import apply_edits
    from unmemorize.editing.edits import gradients_of, matrices_of, visited_gradients, zero_weights
    from unmemorize.editing.selection import count_for, select_largest, select_top
    from unmemorize.errors import (
        ConfigError,
        DataError,
        DivergedError,
        PluginError,
        UnmemorizeError,
        nearest,
    )
    from unmemorize.evaluation import Evaluation, Generated, TeacherForced
    from unmemorize.execution.estimate import CostEstimate, estimate_cost
    from unmemorize.files.places import digest_of, located
    from unmemorize.models.source import ModelLoading, ModelSource, Opened, model_fingerprint, open_model
    from unmemorize.search.config import FindConfig
    from unmemorize.search.findings import Findings
    from unmemorize.search.found import FoundWindow
    from unmemorize.training.checkpoint import Checkpoint
    from unmemorize.training.finetuning import FineTuning, FineTuningConfig
    from unmemorize.training.loop import TrainingReport, train
    from unmemorize.training.losses import sequence_losses, token_losses
    from unmemorize.training.regularizer import Regularizer, TrainingObjective, TrainingStep
    from unmemorize.unlearning.gates import GateConfig, GateUnlearning, gate_cost, gate_gradients, gated_activations
    from unmemorize.unlearning.neurons import NeuronConfig, NeuronUnlearning, missing_layout, neuron_activations
    from unmemorize.unlearning.objective import (
        Term,
        objective_gradients,
        sampled_rows,
        shuffled_rows,
        visit_objective_gradients,
    )
    from unmemorize.unlearning.per_sequence import visit_sequence_gradients
    from unmemorize.unlearning.replay import Recording, Replay, Span, outgoing_rows, recording_cost, room_for_reruns
    from unmemorize.unlearning.subnet import SubnetConfig, learn_mask, mask_cost
    from unmemorize.unlearning.weights import (
        WeightConfig,
        WeightRemoval,
        WeightUnlearning,
        gradient_cost,
        mlp_gradients,
        offload_device,
        put_back,
    )

_ROOMS = {
    "execution.estimate": ("CostEstimate", "estimate_cost"),
    "contracts.cost": ("Cost", "Sizes", "count_tokens", "count_shuffled_tokens"),
    "editing.checkpointing": ("checkpointed_blocks",),
    "api": ("Mitigation", "Results", "export", "find", "load_results", "mitigate", "run"),
    "contracts.config": ("StrictConfig",),
    "contracts.context": ("Context",),
    "contracts.executor": ("ExecutorFactory",),
    "contracts.hookspecs": ("CellEvent", "hookimpl"),
    "contracts.layout": ("MLP", "Layout", "Matrix"),
    "contracts.method": ("Method",),
    "contracts.metric": ("Measurement", "Metric", "Reading", "mean_over_sequences", "wilson_interval"),
    "contracts.provider": ("ModelProvider",),
    "contracts.recipe": ("TrainingRecipe",),
    "contracts.testbed": ("Sequences", "Testbed", "Window"),
    "unlearning.gates": ("GateConfig", "GateUnlearning", "gate_cost", "gate_gradients", "gated_activations"),
    "unlearning.replay": ("Recording", "Replay", "Span", "outgoing_rows", "recording_cost", "room_for_reruns"),
    "unlearning.neurons": ("NeuronConfig", "NeuronUnlearning", "missing_layout", "neuron_activations"),
    "editing.edit_file": ("apply_edits",),
    "editing.edits": ("gradients_of", "matrices_of", "visited_gradients", "zero_weights"),
    "editing.selection": ("count_for", "select_largest", "select_top"),
    "unlearning.objective": (
        "Term",
        "objective_gradients",
        "sampled_rows",
        "shuffled_rows",
        "visit_objective_gradients",
    ),
    "unlearning.per_sequence": ("visit_sequence_gradients",),
    "unlearning.subnet": ("SubnetConfig", "learn_mask", "mask_cost"),
    "unlearning.weights": (
        "WeightConfig",
        "WeightRemoval",
        "WeightUnlearning",
        "gradient_cost",
        "mlp_gradients",
        "put_back",
        "offload_device",
    ),
    "errors": ("ConfigError", "DataError", "DivergedError", "PluginError", "UnmemorizeError", "nearest"),
    "evaluation": ("Evaluation", "TeacherForced", "Generated"),
    "search.config": ("FindConfig",),
    "search.findings": ("Findings",),
    "search.found": ("FoundWindow",),
    "data.duplicates": ("near_duplicate_groups", "without_near_duplicates"),
    "data.rows": ("Bounds",),
    "models.source": ("ModelLoading", "ModelSource", "Opened", "model_fingerprint", "open_model"),
    "files.places": ("digest_of", "located"),
    "data.sequences": ("SequenceSet", "read_sequences"),
    "data.sets": ("OpenedSequences", "SequenceSource", "open_sequences", "sequences_fingerprint"),
    "data.corpora": ("Corpus", "Document", "open_corpus"),
    "training.checkpoint": ("Checkpoint",),
    "training.finetuning": ("FineTuning", "FineTuningConfig"),
    "training.loop": ("TrainingReport", "train"),
    "training.losses": ("sequence_losses", "token_losses"),
    "training.regularizer": ("Regularizer", "TrainingObjective", "TrainingStep"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "MLP",
    "Bounds",
    "CellEvent",
    "Checkpoint",
    "ConfigError",
    "Context",
    "Corpus",
    "Cost",
    "CostEstimate",
    "DataError",
    "DivergedError",
    "Document",
    "Evaluation",
    "ExecutorFactory",
    "FindConfig",
    "Findings",
    "FineTuning",
    "FineTuningConfig",
    "FoundWindow",
    "GateConfig",
    "GateUnlearning",
    "Generated",
    "Layout",
    "Matrix",
    "Measurement",
    "Method",
    "Metric",
    "Mitigation",
    "ModelLoading",
    "ModelProvider",
    "ModelSource",
    "NeuronConfig",
    "NeuronUnlearning",
    "Opened",
    "OpenedSequences",
    "PluginError",
    "Reading",
    "Recording",
    "Regularizer",
    "Replay",
    "Results",
    "SequenceSet",
    "SequenceSource",
    "Sequences",
    "Sizes",
    "Span",
    "StrictConfig",
    "SubnetConfig",
    "TeacherForced",
    "Term",
    "Testbed",
    "TrainingObjective",
    "TrainingRecipe",
    "TrainingReport",
    "TrainingStep",
    "UnmemorizeError",
    "WeightConfig",
    "WeightRemoval",
    "WeightUnlearning",
    "Window",
    "apply_edits",
    "checkpointed_blocks",
    "count_for",
    "count_shuffled_tokens",
    "count_tokens",
    "digest_of",
    "estimate_cost",
    "export",
    "find",
    "gate_cost",
    "gate_gradients",
    "gated_activations",
    "gradient_cost",
    "gradients_of",
    "hookimpl",
    "learn_mask",
    "load_results",
    "located",
    "mask_cost",
    "matrices_of",
    "mean_over_sequences",
    "missing_layout",
    "mitigate",
    "mlp_gradients",
    "model_fingerprint",
    "near_duplicate_groups",
    "nearest",
    "neuron_activations",
    "objective_gradients",
    "offload_device",
    "open_corpus",
    "open_model",
    "open_sequences",
    "outgoing_rows",
    "put_back",
    "read_sequences",
    "recording_cost",
    "room_for_reruns",
    "run",
    "sampled_rows",
    "select_largest",
    "select_top",
    "sequence_losses",
    "sequences_fingerprint",
    "shuffled_rows",
    "token_losses",
    "train",
    "visit_objective_gradients",
    "visit_sequence_gradients",
    "visited_gradients",
    "wilson_interval",
    "without_near_duplicates",
    "zero_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = globals()[name] = getattr(room, name)
    return value


def __dir__() -> list[str]:
    return __all__
