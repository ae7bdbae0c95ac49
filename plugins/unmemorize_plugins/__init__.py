"""The built-in plugins of unmemorize, registered through the same hooks as anybody's."""

from __future__ import annotations

from pathlib import Path

from unmemorize import ExecutorFactory, Layout, Method, Metric, ModelProvider, hookimpl


@hookimpl
def register_methods() -> list[type[Method]]:
    """Return the built-in methods, stage by stage."""
    from unmemorize_plugins.methods.finetuning.both import Both
    from unmemorize_plugins.methods.finetuning.clean import Clean
    from unmemorize_plugins.methods.finetuning.extra import Extra
    from unmemorize_plugins.methods.regularizers.example_tied_dropout import ExampleTiedDropout
    from unmemorize_plugins.methods.regularizers.loss_truncation import LossTruncation
    from unmemorize_plugins.methods.regularizers.spectral_norm import SpectralNorm
    from unmemorize_plugins.methods.unlearning.neuron.activations import Activations
    from unmemorize_plugins.methods.unlearning.neuron.hard_concrete import HardConcrete
    from unmemorize_plugins.methods.unlearning.neuron.integrated_gradients import IntegratedGradients
    from unmemorize_plugins.methods.unlearning.neuron.random_neurons import RandomNeurons
    from unmemorize_plugins.methods.unlearning.neuron.slimming import Slimming
    from unmemorize_plugins.methods.unlearning.neuron.zero_out import ZeroOut
    from unmemorize_plugins.methods.unlearning.weight.balanced_subnet import BalancedSubnet
    from unmemorize_plugins.methods.unlearning.weight.durable import Durable
    from unmemorize_plugins.methods.unlearning.weight.durable_aggregate import DurableAggregate
    from unmemorize_plugins.methods.unlearning.weight.greedy import Greedy
    from unmemorize_plugins.methods.unlearning.weight.random_weights import RandomWeights
    from unmemorize_plugins.methods.unlearning.weight.second_order import SecondOrder
    from unmemorize_plugins.methods.unlearning.weight.subnet import Subnet

    return [
        SpectralNorm,
        LossTruncation,
        ExampleTiedDropout,
        Clean,
        Extra,
        Both,
        ZeroOut,
        Activations,
        IntegratedGradients,
        Slimming,
        HardConcrete,
        RandomNeurons,
        Greedy,
        Durable,
        DurableAggregate,
        SecondOrder,
        Subnet,
        BalancedSubnet,
        RandomWeights,
    ]


@hookimpl
def register_metrics() -> list[type[Metric]]:
    """Return the built-in metrics."""
    from unmemorize_plugins.metrics.approximate import Approximate
    from unmemorize_plugins.metrics.discoverable import Discoverable
    from unmemorize_plugins.metrics.exact_memorization import ExactMemorization
    from unmemorize_plugins.metrics.extraction import Extraction
    from unmemorize_plugins.metrics.extraction_strength import ExtractionStrength
    from unmemorize_plugins.metrics.levenshtein import Levenshtein
    from unmemorize_plugins.metrics.lm_eval import LMEval
    from unmemorize_plugins.metrics.membership import Membership
    from unmemorize_plugins.metrics.prefix_shift import PrefixShift
    from unmemorize_plugins.metrics.quantization import Quantization
    from unmemorize_plugins.metrics.relearning import Relearning
    from unmemorize_plugins.metrics.sampling import Sampling
    from unmemorize_plugins.metrics.utility import Accuracy, AccuracyPadded, ForgetPerplexity, Perplexity

    return [
        Extraction,
        ExactMemorization,
        ExtractionStrength,
        Levenshtein,
        Approximate,
        Discoverable,
        PrefixShift,
        Membership,
        Relearning,
        Quantization,
        Sampling,
        Accuracy,
        AccuracyPadded,
        Perplexity,
        ForgetPerplexity,
        LMEval,
    ]


@hookimpl
def register_providers() -> list[type[ModelProvider]]:
    """Return the built-in model providers."""
    from unmemorize_plugins.providers.huggingface import HuggingFace
    from unmemorize_plugins.providers.planted.provider import Planted
    from unmemorize_plugins.providers.pythia import Pythia
    from unmemorize_plugins.providers.tinymem.language import TinyMemLanguage
    from unmemorize_plugins.providers.tinymem.provider import TinyMem

    return [TinyMem, TinyMemLanguage, Planted, HuggingFace, Pythia]


@hookimpl
def register_layouts() -> tuple[Layout, ...]:
    """Return the built-in table of layouts."""
    from unmemorize_plugins.layouts import LAYOUTS

    return LAYOUTS


@hookimpl
def register_executors() -> list[type[ExecutorFactory]]:
    """Return the built-in executors."""
    from unmemorize_plugins.executors.processes import Processes

    return [Processes]


@hookimpl
def register_suites() -> list[Path]:
    """Return the built-in suites: beside this package in a wheel, in the repository's `leaderboards/` otherwise."""
    here = Path(__file__).resolve().parent
    for folder in (here / "suites", here.parents[1] / "leaderboards"):
        if folder.is_dir():
            return sorted(folder.glob("*/suite.toml"))
    return []
