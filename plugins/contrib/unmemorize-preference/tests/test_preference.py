"""Both objectives equal their definitions, row by row; the training ends in time; memory goes and the rule stays."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from unmemorize import Context, DivergedError, Evaluation, Sequences, Testbed, TrainingStep
from unmemorize.testing import ARCHITECTURES, memorizing_testbed, tiny_model, tiny_testbed
from unmemorize.toolkit import shuffled_rows, token_losses
from unmemorize_preference import NPO, GradientDifference, Preference


def log_probabilities(model: torch.nn.Module, rows: Sequences, tokens: str) -> list[tuple[float, int]]:
    """For each row, the log-probability of the tokens that count, and how many these are."""
    found = []
    for row, length, start in zip(
        rows.tokens.tolist(), rows.lengths.tolist(), rows.suffix_starts.tolist(), strict=True
    ):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row[:length]])).logits[0].double()
        places = range(1 if tokens == "all" else start, length)
        found.append((sum(float(logits[t - 1].log_softmax(-1)[row[t]]) for t in places), len(places)))
    return found


def step_of(model: torch.nn.Module, batch: Sequences) -> TrainingStep:
    losses = token_losses(model, batch)
    return TrainingStep(model, batch, losses.values, losses.mask, losses.row_means(), number=0, epoch=0)


def drawn_retain(testbed: Testbed, method: Preference, size: int) -> Sequences:
    """The retain rows of the first step."""
    assert testbed.retain is not None
    return next(shuffled_rows(testbed.retain, size, 1, Context().generator(method.name, "retain")))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def extractable(testbed: Testbed) -> float:
    return float(Evaluation(testbed).extraction("forget", testbed.window).extractable.float().mean())


def accuracy(testbed: Testbed) -> float:
    teacher_forced = Evaluation(testbed).teacher_forced("holdout:counting")
    return float(teacher_forced.hits.sum() / teacher_forced.real.sum())


@pytest.fixture(params=ARCHITECTURES)
def testbed(request: pytest.FixtureRequest) -> Testbed:
    return tiny_testbed(tiny_model(request.param), ())


@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_gradient_difference_is_its_definition(testbed: Testbed, tokens: str) -> None:
    method = GradientDifference(retain_weight=0.7, tokens=tokens, batch_size=4)
    objective = method.objective(testbed, Context())
    batch = testbed.forget.select([4, 0, 3, 1])
    value = objective.objective(step_of(testbed.model, batch)).detach()
    forget = mean([-p / n for p, n in log_probabilities(testbed.model, batch, tokens)])
    retain = drawn_retain(testbed, method, 4)
    kept = mean([-p / n for p, n in log_probabilities(testbed.model, retain, tokens)])
    assert float(value) == pytest.approx(0.7 * kept - forget, abs=1e-4)


@pytest.mark.parametrize("tokens", ["all", "suffix"])
def test_npo_is_its_definition(testbed: Testbed, tokens: str) -> None:
    method = NPO(beta=0.3, retain_weight=0.5, tokens=tokens, batch_size=4)
    objective = method.objective(testbed, Context())
    batch = testbed.forget.select([4, 0, 3, 1])
    before = log_probabilities(testbed.model, batch, tokens)
    with torch.no_grad():
        next(iter(testbed.model.parameters())).mul_(1.3)
    after = log_probabilities(testbed.model, batch, tokens)
    ratios = [math.exp(p - p0) for (p, _), (p0, _) in zip(after, before, strict=True)]
    away = mean([2 / 0.3 * math.log(1 + ratio**0.3) for ratio in ratios])
    kept = mean([-p for p, _ in log_probabilities(testbed.model, drawn_retain(testbed, method, 4), tokens)])
    value = objective.objective(step_of(testbed.model, batch)).detach()
    assert float(value) == pytest.approx(away + 0.5 * kept, rel=1e-4)


def test_npo_pushes_forgotten_rows_less(testbed: Testbed) -> None:
    """Its gradient is that of ascent times 2 p^beta / (p^beta + p_0^beta)."""
    method = NPO(beta=0.2, retain_weight=0.0, batch_size=1, tokens="all")
    objective = method.objective(testbed, Context())
    batch = testbed.forget.select([0])
    weight = testbed.model.get_output_embeddings().weight
    before = log_probabilities(testbed.model, batch, "all")[0][0]
    with torch.no_grad():
        weight.mul_(1.5)
    after = log_probabilities(testbed.model, batch, "all")[0][0]
    (found,) = torch.autograd.grad(objective.objective(step_of(testbed.model, batch)), weight)
    losses = token_losses(testbed.model, batch)
    (ascent,) = torch.autograd.grad(-losses.values.sum(), weight)
    factor = 2 / (1 + math.exp(0.2 * (before - after)))
    torch.testing.assert_close(found, factor * ascent, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [GradientDifference, NPO])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_forget_set_goes_and_the_rule_stays(method: type[Preference], architecture: str) -> None:
    testbed = memorizing_testbed(architecture)
    known = accuracy(testbed)
    assert extractable(testbed) > 0.9
    context = Context()
    method(learning_rate=1e-3).apply(testbed.shown_to(method.name, method.needs), context)
    assert extractable(testbed) < 0.3
    assert accuracy(testbed) > 0.8 * known
    assert set(context.report.seconds) == {"train"}


def test_it_ends_as_soon_as_the_forget_set_is_no_longer_regurgitated() -> None:
    context, testbed = Context(), memorizing_testbed()
    GradientDifference(learning_rate=1e-3, stop_at=0.3).apply(testbed, context)
    assert context.report.notes["stopped_early"]
    assert context.report.notes["epochs"] < 50
    assert extractable(testbed) <= 0.3
    context = Context()
    GradientDifference(learning_rate=1e-6, stop_at=None, epochs=3).apply(memorizing_testbed(), context)
    assert "stopped_early" not in context.report.notes
    assert context.report.notes["epochs"] == 3


def test_a_later_end_forgets_more() -> None:
    epochs = []
    for stop_at in (0.7, 0.0):
        context = Context()
        NPO(learning_rate=3e-4, stop_at=stop_at).apply(memorizing_testbed(), context)
        epochs.append(context.report.notes["epochs"])
    assert epochs[0] < epochs[1]


def test_ascent_without_an_end_is_reported_as_divergence_or_not_at_all(testbed: Testbed) -> None:
    """Steps without measure lead to a loss that is not finite, and this is said."""
    with pytest.raises(DivergedError, match="gradient_difference"):
        GradientDifference(learning_rate=1e30, stop_at=None, epochs=50, optimizer="SGD").apply(testbed, Context())


@pytest.mark.parametrize("method", [GradientDifference, NPO])
def test_its_cost_is_the_tokens_of_all_epochs(method: type[Preference]) -> None:
    given: dict[bool, int] = {True: 0, False: 0}

    def count(_: object, arguments: tuple[object, ...], named: dict[str, Tensor]) -> None:
        given[torch.is_grad_enabled()] += named["input_ids"].numel()

    testbed = memorizing_testbed()
    chosen = method(epochs=4, batch_size=8, stop_at=0.0, learning_rate=1e-9)
    handle = testbed.model.register_forward_pre_hook(count, with_kwargs=True)
    chosen.apply(testbed, Context())
    handle.remove()
    cost = chosen.cost(testbed)
    assert given[True] == cost.training_tokens
    assert cost.forward_tokens == pytest.approx(given[False], rel=0.25)  # one pass more or less, and the last positions


def test_more_rows_per_step_than_there_are(testbed: Testbed) -> None:
    context = Context()
    NPO(batch_size=64, epochs=2, stop_at=None).apply(testbed, context)
    assert context.report.notes["steps"] == 2


def test_a_testbed_without_a_retain_set_is_refused(testbed: Testbed) -> None:
    testbed.retain = None
    assert "retain" in str(NPO().supports(testbed))


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError):
        NPO(beta=0)
    with pytest.raises(ValidationError):
        GradientDifference(stop_at=1.0)
    with pytest.raises(ValidationError):
        GradientDifference(beta=0.1)
