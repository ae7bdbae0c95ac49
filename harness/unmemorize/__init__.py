"""unmemorize: benchmark, compare and apply mitigations of memorization in language models.

This module is the one public door. What it names in `__all__` is stable; everything else is a room of the house.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unmemorize.api import Mitigation, Results, load_results, mitigate, run
    from unmemorize.contracts.config import StrictConfig
    from unmemorize.contracts.context import Context
    from unmemorize.contracts.executor import ExecutorFactory
    from unmemorize.contracts.hookspecs import CellEvent, hookimpl
    from unmemorize.contracts.layout import MLP, Layout, Matrix
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.metric import Measurement, Metric, mean_over_sequences, wilson_interval
    from unmemorize.contracts.provider import ModelProvider
    from unmemorize.contracts.recipe import TrainingRecipe
    from unmemorize.contracts.testbed import Sequences, Testbed, Window
    from unmemorize.editing.edits import gradients_of, matrices_of, zero_weights
    from unmemorize.editing.selection import count_for, select_largest, select_top
    from unmemorize.errors import (
        ConfigError,
        DataError,
        DivergedError,
        PluginError,
        UnmemorizeError,
    )
    from unmemorize.evaluation import Evaluation, Forced
    from unmemorize.training.checkpoint import Checkpoint
    from unmemorize.training.finetuning import FineTuning, FineTuningConfig
    from unmemorize.training.loop import TrainingReport, train
    from unmemorize.training.losses import sequence_losses, token_losses
    from unmemorize.training.regularizer import Regularizer, TrainingStep
    from unmemorize.unlearning.gates import GateConfig, GateUnlearning, gate_gradients, gated_activations
    from unmemorize.unlearning.neurons import NeuronConfig, NeuronUnlearning, missing_layout, neuron_activations
    from unmemorize.unlearning.objective import Term, objective_gradients, shuffled_rows
    from unmemorize.unlearning.per_sequence import visit_sequence_gradients
    from unmemorize.unlearning.replay import Recording, Replay, Span, outgoing_rows
    from unmemorize.unlearning.subnet import SubnetConfig, learn_mask
    from unmemorize.unlearning.weights import (
        WeightConfig,
        WeightRemoval,
        WeightUnlearning,
        mlp_gradients,
        put_back,
    )

_ROOMS = {
    "api": ("Mitigation", "Results", "load_results", "mitigate", "run"),
    "contracts.config": ("StrictConfig",),
    "contracts.context": ("Context",),
    "contracts.executor": ("ExecutorFactory",),
    "contracts.hookspecs": ("CellEvent", "hookimpl"),
    "contracts.layout": ("MLP", "Layout", "Matrix"),
    "contracts.method": ("Method",),
    "contracts.metric": ("Measurement", "Metric", "mean_over_sequences", "wilson_interval"),
    "contracts.provider": ("ModelProvider",),
    "contracts.recipe": ("TrainingRecipe",),
    "contracts.testbed": ("Sequences", "Testbed", "Window"),
    "unlearning.gates": (
        "GateConfig",
        "GateUnlearning",
        "gate_gradients",
        "gated_activations",
    ),
    "unlearning.replay": (
        "Recording",
        "Replay",
        "Span",
        "outgoing_rows",
    ),
    "unlearning.neurons": ("NeuronConfig", "NeuronUnlearning", "missing_layout", "neuron_activations"),
    "editing.edits": ("gradients_of", "matrices_of", "zero_weights"),
    "editing.selection": ("count_for", "select_largest", "select_top"),
    "unlearning.objective": ("Term", "objective_gradients", "shuffled_rows"),
    "unlearning.per_sequence": ("visit_sequence_gradients",),
    "unlearning.subnet": ("SubnetConfig", "learn_mask"),
    "unlearning.weights": ("WeightConfig", "WeightRemoval", "WeightUnlearning", "mlp_gradients", "put_back"),
    "errors": ("ConfigError", "DataError", "DivergedError", "PluginError", "UnmemorizeError"),
    "evaluation": ("Evaluation", "Forced"),
    "training.checkpoint": ("Checkpoint",),
    "training.finetuning": ("FineTuning", "FineTuningConfig"),
    "training.loop": ("TrainingReport", "train"),
    "training.losses": ("sequence_losses", "token_losses"),
    "training.regularizer": ("Regularizer", "TrainingStep"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "MLP",
    "CellEvent",
    "Checkpoint",
    "ConfigError",
    "Context",
    "DataError",
    "DivergedError",
    "Evaluation",
    "ExecutorFactory",
    "FineTuning",
    "FineTuningConfig",
    "Forced",
    "GateConfig",
    "GateUnlearning",
    "Layout",
    "Matrix",
    "Measurement",
    "Method",
    "Metric",
    "Mitigation",
    "ModelProvider",
    "NeuronConfig",
    "NeuronUnlearning",
    "PluginError",
    "Recording",
    "Regularizer",
    "Replay",
    "Results",
    "Sequences",
    "Span",
    "StrictConfig",
    "SubnetConfig",
    "Term",
    "Testbed",
    "TrainingRecipe",
    "TrainingReport",
    "TrainingStep",
    "UnmemorizeError",
    "WeightConfig",
    "WeightRemoval",
    "WeightUnlearning",
    "Window",
    "count_for",
    "gate_gradients",
    "gated_activations",
    "gradients_of",
    "hookimpl",
    "learn_mask",
    "load_results",
    "matrices_of",
    "mean_over_sequences",
    "missing_layout",
    "mitigate",
    "mlp_gradients",
    "neuron_activations",
    "objective_gradients",
    "outgoing_rows",
    "put_back",
    "run",
    "select_largest",
    "select_top",
    "sequence_losses",
    "shuffled_rows",
    "token_losses",
    "train",
    "visit_sequence_gradients",
    "wilson_interval",
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
