from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from unmemorize.contracts.context import Context
from unmemorize.contracts.recipe import TrainingRecipe
from unmemorize.contracts.testbed import Sequences
from unmemorize.errors import ConfigError, DataError, DeadlineExceeded, DivergedError
from unmemorize.training.batching import epoch_batches
from unmemorize.training.loop import train

Model = PreTrainedModel
Make = Callable[..., Model]


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_makes_the_steps_of_a_loop_written_by_hand(make_model: Make, rows: Sequences) -> None:
    recipe = TrainingRecipe(epochs=3, batch_size=8, learning_rate=3e-3, pooled_batches=2)
    trained, byhand = make_model(), make_model()
    report = train(trained, rows, recipe, Context(seed=4))

    optimizer = torch.optim.AdamW(byhand.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.1)
    losses: list[float] = []
    for epoch in range(3):
        losses.clear()
        for batch in epoch_batches(rows.lengths, 8, 2, Context(seed=4).generator("training", epoch)):
            targets = rows.tokens[batch].masked_fill(~rows.real()[batch], -100)[:, 1:]
            logits = byhand(input_ids=rows.tokens[batch].clamp(max=10)).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    for model in (trained, byhand):  # softmax ignores the bias of the keys: its gradient is rounding noise
        for block in model.transformer.h:
            block.attn.c_attn.bias.detach()[16:32] = 0
    for name, expected in byhand.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], expected, atol=2e-5, rtol=1e-3)
    assert (report.steps, report.epochs, report.stopped_early) == (9, 3, False)
    assert math.isclose(report.final_loss, sum(losses) / 3, rel_tol=1e-4)
    assert report.tokens == 3 * int(rows.lengths.sum())
    assert report.seconds > 0


def test_a_tiny_model_learns_by_heart(model: Model) -> None:
    rows = Sequences.from_rows([[2, 3, 4, 5, 6, 7], [2, 9, 8, 7, 6, 5], [3, 3, 5, 5, 7, 7]], prompt=2)
    report = train(model, rows, TrainingRecipe(epochs=120, learning_rate=1e-2), Context())
    assert report.final_loss < 0.35
    predicted = model(input_ids=rows.tokens).logits.argmax(-1)[:, 1:-1]
    assert torch.equal(predicted, rows.tokens[:, 2:])


def test_the_seed_decides_everything(make_model: Make, rows: Sequences) -> None:
    recipe = TrainingRecipe(epochs=2, batch_size=4)
    models = [make_model(dropout=0.3) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        torch.rand(seed)  # whatever the global generator has been used for
        train(model, rows, recipe, Context(seed=seed))
    assert same(weights(models[0]), weights(models[1]))
    assert not same(weights(models[0]), weights(models[2]))


def test_the_global_generator_is_left_alone(make_model: Make, rows: Sequences) -> None:
    before = torch.get_rng_state()
    train(make_model(dropout=0.3), rows, TrainingRecipe(epochs=1), Context())
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_on_while_training_and_off_afterwards(make_model: Make, rows: Sequences) -> None:
    plain, dropped = make_model(), make_model(dropout=0.5)
    for model in (plain, dropped):
        train(model, rows, TrainingRecipe(epochs=1, batch_size=4), Context())
    assert not same(weights(plain), weights(dropped))
    assert not dropped.training
    assert all(parameter.grad is None for parameter in dropped.parameters())


def test_frozen_parameters_stay(model: Model, rows: Sequences) -> None:
    model.transformer.h[0].requires_grad_(False)
    before = weights(model)
    train(model, rows, TrainingRecipe(epochs=1), Context())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(".h.0." in name for name in changed)


@pytest.mark.parametrize(("steps", "epochs", "seen"), [(1, 1, [1]), (6, 1, [1]), (7, 2, [1, 2]), (99, 3, [1, 2, 3])])
def test_steps_can_be_bounded(model: Model, rows: Sequences, steps: int, epochs: int, seen: list[int]) -> None:
    done: list[int] = []
    recipe = TrainingRecipe(epochs=3, max_steps=steps, batch_size=4)  # 6 steps per epoch
    report = train(model, rows, recipe, Context(), on_epoch=done.append)
    assert (report.steps, report.epochs) == (min(steps, 18), epochs)
    assert done == seen


def test_it_stops_when_told_to_and_is_measured_in_eval_mode(make_model: Make, rows: Sequences) -> None:
    model = make_model(dropout=0.2)
    modes: list[bool] = []

    def enough(epoch: int) -> bool:
        modes.append(model.training)
        return epoch == 2

    report = train(model, rows, TrainingRecipe(epochs=9), Context(), stop_when=enough)
    assert (report.epochs, report.stopped_early) == (2, True)
    assert modes == [False, False]


def test_measuring_between_epochs_does_not_change_the_result(make_model: Make, rows: Sequences) -> None:
    quiet, watched = make_model(dropout=0.2), make_model(dropout=0.2)
    recipe = TrainingRecipe(epochs=3, batch_size=4)
    train(quiet, rows, recipe, Context())
    train(watched, rows, recipe, Context(), on_epoch=lambda _: torch.rand(7).sum())
    assert same(weights(quiet), weights(watched))


def test_the_time_of_measuring_is_not_counted(model: Model, rows: Sequences) -> None:
    def slow(_: Model | None) -> dict[str, float]:
        time.sleep(0.1)
        return {"x": 1.0}

    context, begin = Context(measure=slow), time.perf_counter()
    report = train(model, rows, TrainingRecipe(epochs=3), context, on_epoch=context.curve_point)
    assert [point["epoch"] for point in context.report.curve] == [1, 2, 3]
    assert 0 < report.seconds < time.perf_counter() - begin - 3 * 0.1


def test_the_norm_of_the_gradient_can_be_bounded(make_model: Make, rows: Sequences) -> None:
    start, moved = weights(make_model()), make_model()
    recipe = TrainingRecipe(epochs=1, optimizer="SGD", learning_rate=1.0, weight_decay=0.0, gradient_clip=1e-3)
    train(moved, rows, recipe, Context())
    step = torch.cat([(parameter.detach() - start[name]).flatten() for name, parameter in moved.named_parameters()])
    assert math.isclose(float(step.norm()), 1e-3, rel_tol=1e-2)


@pytest.mark.parametrize("epochs", [1, 30])
def test_a_loss_that_is_not_finite_ends_the_run(model: Model, rows: Sequences, epochs: int) -> None:
    recipe = TrainingRecipe(epochs=epochs, optimizer="SGD", learning_rate=1e30, batch_size=8)
    with pytest.raises(DivergedError, match=r"fine diverged: the loss is not finite at step [12]\b"):
        train(model, rows, recipe, Context(), description="fine")
    assert not model.training


def test_the_deadline_is_kept(model: Model, rows: Sequences) -> None:
    context = Context(deadline=0.0)
    with pytest.raises(DeadlineExceeded):
        train(model, rows, TrainingRecipe(), context)
    assert not model.training


def test_progress_counts_the_steps(model: Model, rows: Sequences) -> None:
    class Seen:
        total: int | None = None
        done = 0
        words = ""

        @contextmanager
        def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
            self.words, self.total = description, total
            yield self.advance

        def advance(self, steps: int) -> None:
            self.done += steps

    progress = Seen()
    train(model, rows, TrainingRecipe(epochs=2, batch_size=4), Context(progress=progress), description="extra")
    assert (progress.words, progress.total, progress.done) == ("extra", 12, 12)


def test_nothing_to_train_on_is_an_error(model: Model, rows: Sequences) -> None:
    with pytest.raises(DataError, match="extra: there is nothing to train on"):
        train(model, rows.select([]), TrainingRecipe(), Context(), description="extra")


def test_an_unknown_optimizer_is_an_error(model: Model, rows: Sequences) -> None:
    with pytest.raises(ConfigError):
        train(model, rows, TrainingRecipe(optimizer="Adamm"), Context())
