"""What must hold for every method of a family, each property once; the rules that all methods keep are in `testing`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from naive import changed, matrix_weights, top_by_sort
from neurons import Harm, close, copy_of, correlation, extracted, left_untouched, overlap
from torch import Tensor

import unmemorize_plugins as built_in
from unmemorize import Context, DivergedError, Method, NeuronUnlearning, Testbed, WeightUnlearning
from unmemorize.errors import DeadlineExceeded, SelectionError
from unmemorize_plugins.methods.regularizers.example_tied_dropout import ExampleTiedDropout
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

SETTINGS: dict[type[Method], dict[str, Any]] = {
    BalancedSubnet: {"ratio": 0.1, "epochs": 2, "beta": 0.7, "batch_size": 8, "learning_rate": 0.1},
    Subnet: {"ratio": 0.1, "epochs": 3, "batch_size": 4, "learning_rate": 0.1},
    Greedy: {"ratio": 0.03, "batch_size": 2},
    HardConcrete: {"max_steps": 8},
    Slimming: {"max_steps": 5, "batch_size": 2},
    IntegratedGradients: {"steps": 2},
}
"""What makes a method quick, and lets its seed decide something."""
WEIGHTS = [Greedy, Durable, DurableAggregate, SecondOrder, Subnet, BalancedSubnet, RandomWeights]
WHOLE_MODEL = [Greedy, DurableAggregate]
SEEDED = [Greedy, Subnet, BalancedSubnet, RandomWeights, HardConcrete, Slimming, RandomNeurons]
LEARNED = [HardConcrete, Slimming]
REMOVING = [method for method in built_in.register_methods() if "ratio" in method.Config.model_fields]


def quick(method: type[Method], **settings: Any) -> Any:
    return method(**SETTINGS.get(method, {}) | settings)


ATTRIBUTIONS = [quick(method) for method in (ZeroOut, Activations, IntegratedGradients, HardConcrete, Slimming)]
ATTRIBUTIONS.append(ZeroOut(estimator="taylor"))


def each(methods: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", methods, ids=lambda m: m.name + str(getattr(m.config, "estimator", "")))


def each_class(methods: Any, *more: str) -> pytest.MarkDecorator:
    names = ",".join(("method", *more))
    return pytest.mark.parametrize(names, methods, ids=lambda m: getattr(m, "name", None))


def found(method: Any, testbed: Testbed, seed: int = 0) -> dict[str, Tensor]:
    """What it selects by: scores of neurons or weights; or else the weights that it selects."""
    name = next(name for name in ("attribute", "score", "masks") if hasattr(method, name))
    values = getattr(method, name)(testbed, Context(seed=seed))
    return values if isinstance(values, dict) else {"neurons": values}


@each_class(REMOVING)
def test_a_ratio_too_small_is_an_error_and_not_a_no_op(testbed: Testbed, method: type[Method]) -> None:
    where = "the whole model" if method in WHOLE_MODEL else ""
    with pytest.raises(SelectionError, match=rf"selects 0 of \d+ units in {where}"):
        quick(method, ratio=1e-5).apply(testbed, Context())


@each_class(SEEDED)
def test_the_seed_decides(testbed: Testbed, method: type[Method]) -> None:
    first, again, other = (found(quick(method), testbed, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@each_class(WEIGHTS)
def test_selected_weights_are_zero_and_all_others_as_before(testbed: Testbed, method: type[Method]) -> None:
    masks, context = quick(method).masks(testbed, Context(seed=5)), Context(seed=5)
    edits = changed(testbed, lambda: quick(method).apply(testbed, context))
    weights, ratio = matrix_weights(testbed), quick(method).config.ratio
    for name, mask in edits.items():
        assert torch.equal(mask, masks[name]) if name in weights else not mask.any(), name
        assert (weights[name][mask] == 0).all() if name in weights else True
    units = [mask.numel() for mask in masks.values()]
    counts = [int(mask.sum()) for mask in masks.values()]
    if method in WHOLE_MODEL:
        assert sum(counts) == int(ratio * sum(units))
        assert len(set(counts)) > 1  # per matrix it would be another choice
    else:
        assert counts == [int(ratio * unit) for unit in units]
    assert context.report.notes["selected_weights"] == sum(counts)
    assert context.report.notes.get("weights_without_gain", 0) == 0
    for parameter in testbed.model.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert not parameter._post_accumulate_grad_hooks
    assert not any(module._forward_hooks for module in testbed.model.modules())


@each_class([Durable, DurableAggregate, SecondOrder])
def test_the_weights_of_the_highest_scores_are_selected(testbed: Testbed, method: type[WeightUnlearning]) -> None:
    scores, masks = method().score(testbed, Context()), method().masks(testbed, Context())
    for group in [scores] if method in WHOLE_MODEL else [[name] for name in scores]:
        score = torch.cat([scores[name].flatten() for name in group])
        mask = torch.cat([masks[name].flatten() for name in group])
        assert torch.equal(mask, top_by_sort(score, int(mask.sum())))


@each(ATTRIBUTIONS)
def test_an_attribution_leaves_the_model_as_it_was(testbed: Testbed, method: NeuronUnlearning) -> None:
    with left_untouched(testbed):
        method.attribute(testbed, Context())
    with left_untouched(testbed), pytest.raises(DeadlineExceeded, match="ran past its deadline of 0 s"):
        method.attribute(testbed, Context(deadline=0.0))


@each_class(
    [
        (Greedy, "removing weights"),
        (Subnet, "learning the mask"),
        (BalancedSubnet, "learning the mask"),
        (SecondOrder, "gradients of every sequence"),
        (HardConcrete, "gradients of gates"),
        (Slimming, "gradients of gates"),
    ],
    "doing",
)
def test_the_model_is_restored_when_time_is_up_or_the_loss_is_not_finite(
    testbed: Testbed, method: type[Method], doing: str
) -> None:
    def fail() -> None:
        with pytest.raises(DeadlineExceeded, match=doing):
            quick(method).apply(testbed, Context(deadline=0.0))

    def diverge() -> None:
        with pytest.raises(DivergedError, match=rf"({doing}|{method.name}).* diverged: .* not finite at step \d"):
            quick(method).apply(testbed, Context())

    assert not any(mask.any() for mask in changed(testbed, fail).values())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in testbed.model.parameters())
    testbed.model.get_input_embeddings().weight.data[:] = torch.inf
    assert not any(mask.any() for mask in changed(testbed, diverge).values())


@each(ATTRIBUTIONS + [quick(method) for method in (Durable, DurableAggregate, SecondOrder)])
def test_bfloat16_gives_float32_scores_near_the_exact_ones(testbed: Testbed, method: Method) -> None:
    exact = found(method, testbed)
    testbed.model.to(torch.bfloat16)
    for name, score in found(method, testbed).items():
        assert score.dtype == torch.float32
        assert torch.isfinite(score).all()
        one, other = score, exact[name]
        if isinstance(method, SecondOrder):  # a few scores are many times all others
            one, other = (values.flatten().argsort().argsort().float() for values in (one, other))
        assert correlation(one, other) > (0.9 if type(method) in LEARNED else 0.95), name


@pytest.mark.parametrize(
    ("alone", "together"),
    [
        (Activations(batch_size=1), Activations(batch_size=6)),
        (ZeroOut(batch_size=1, reruns_per_batch=7), ZeroOut(batch_size=6)),
        (IntegratedGradients(batch_size=3, rows_per_batch=1), IntegratedGradients()),
    ],
    ids=lambda method: method.name,
)
def test_batches_do_not_change_the_attribution(testbed: Testbed, alone: Any, together: Any) -> None:
    assert close(alone.attribute(testbed, Context()), together.attribute(testbed, Context()))


@each_class(LEARNED)
def test_it_stops_once_enough_gates_have_fallen(planted: Testbed, method: type[NeuronUnlearning]) -> None:
    context = Context()
    scores = method(sparsity=0.8).attribute(planted, context)
    assert float((scores < 0.5).float().mean()) >= 0.8
    assert context.report.notes["steps"] < 200


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.1, 0.2])
@each_class(LEARNED)
def test_gates_separate_so_that_no_tie_decides(planted: Testbed, method: type[NeuronUnlearning], ratio: float) -> None:
    context = Context()
    method(ratio=ratio).apply(planted, context)
    assert "tie-broken" not in context.report.flags


@each_class([(HardConcrete, 3), (Slimming, 2)], "times")
def test_it_harms_the_memorized_rows_more_than_removing_random_neurons(
    planted: Testbed, method: type[NeuronUnlearning], times: float
) -> None:
    harm = Harm(planted, ratio=0.2)
    draws = [harm.of(RandomNeurons, seed=seed).forget_loss for seed in range(5)]
    assert harm.of(method).forget_loss > times * sum(draws) / len(draws)


@each_class(LEARNED)
def test_it_lowers_extraction_more_than_removing_random_neurons(
    planted: Testbed, method: type[NeuronUnlearning]
) -> None:
    assert extracted(planted) == len(planted.forget)
    left = []
    for other, seed in [(method, 0), *[(RandomNeurons, seed) for seed in range(3)]]:
        testbed = copy_of(planted)
        other(ratio=0.3).apply(testbed, Context(seed=seed))
        left.append(extracted(testbed))
    assert left[0] < sum(left[1:]) / 3 - 2


@each_class([(HardConcrete, 0.3), (Slimming, 0.5)], "most")
def test_neurons_of_the_memorized_rows_are_others_than_those_of_regular_rows(
    planted: Testbed, method: type[NeuronUnlearning], most: float
) -> None:
    harm = Harm(planted, ratio=0.2)
    of_memorized, of_regular = harm.of(method), harm.of(method, shown=planted.retain)
    assert overlap(of_memorized.removed, of_regular.removed) < most
    if method is HardConcrete:
        assert of_memorized.forget_loss > 1.5 * of_regular.forget_loss
    else:
        assert overlap(of_memorized.removed, harm.of(method, seed=1).removed) > 0.25  # chance: 0.11
        assert of_memorized.retain_loss < of_regular.retain_loss / 1.25


@each_class([SpectralNorm, ExampleTiedDropout])
def test_it_asks_for_a_layout_and_for_training(testbed: Testbed, method: type[Method]) -> None:
    assert "does not train from scratch" in str(method().supports(testbed))
    testbed.trainable = True
    assert method().supports(testbed) is None
    testbed.mlps = ()
    assert "no layout is registered" in str(method().supports(testbed))
