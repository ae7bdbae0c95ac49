from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from unmemorize import Context, ModelProvider, Regularizer, Sequences, Testbed, TrainingStep
from unmemorize.errors import CacheWarning
from unmemorize.training.losses import sequence_losses
from unmemorize_plugins.providers.tinymem import TinyMem

Make = Callable[..., TinyMem]


class Plain(Regularizer):
    name: ClassVar[str] = "plain"


class Halved(Regularizer):
    """Minimizes half the loss, and keeps the MLPs it was given."""

    name: ClassVar[str] = "halved"
    seen: tuple[Any, ...] = ()

    def objective(self, step: TrainingStep) -> Tensor:
        return step.mean_loss / 2 + 1e-3 * step.sequence_losses.max()

    def finish(self, model: PreTrainedModel, mlps: tuple[Any, ...]) -> None:
        self.seen = (model, mlps)


def equal(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


class Steps:
    """Progress that counts optimizer steps, and may break off."""

    def __init__(self, break_at: int | None = None) -> None:
        self.done, self.break_at = 0, break_at

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        yield self.advance

    def advance(self, steps: int) -> None:
        self.done += steps
        if self.done == self.break_at:
            raise KeyboardInterrupt


def test_it_is_a_provider_that_trains() -> None:
    assert issubclass(TinyMem, ModelProvider)
    assert (TinyMem.name, TinyMem.trains()) == ("tinymem", True)


@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
def test_the_testbed_is_complete(make_tiny: Make, artifact: str) -> None:
    testbed = make_tiny(artifact=artifact, main_sequences=120).load(Context())
    assert set(testbed.sets()) == {
        "forget", "forget_unseen", "retain", "clean", "extra",
        "holdout:additive_7", "holdout:additive_2", "holdout:additive_3",
    }  # fmt: skip
    assert testbed.trainable
    assert testbed.modality == "math"
    assert testbed.recipe.epochs == 2
    assert testbed.facts["epochs"] == 2
    assert testbed.facts["training_sequences"] > 100
    assert testbed.facts["training_tokens"] > 0
    assert not testbed.model.training


def test_the_model_is_the_papers_gpt2(make_tiny: Make) -> None:
    config = make_tiny(layers=2, width=128, heads=4, context=150).load(Context()).model.config
    assert (config.model_type, config.vocab_size, config.n_positions) == ("gpt2", 14, 150)
    assert (config.n_layer, config.n_head, config.n_embd) == (2, 4, 128)
    assert config.activation_function == "relu"
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0
    assert config.initializer_range == pytest.approx(0.8 / 128**0.5)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (10, 11, 13)


def test_the_model_survives_saving_and_generates(make_tiny: Make, tmp_path: Path) -> None:
    testbed = make_tiny().load(Context())
    testbed.model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert equal(testbed.model, again)
    prompt = testbed.forget.tokens[:1, :5]
    out = again.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4)
    assert out.shape[1] <= 9


def test_the_seed_decides_the_model(make_tiny: Make) -> None:
    models = []
    for seed in (1, 1, 2):
        torch.rand(seed)
        models.append(make_tiny().load(Context(seed=seed)).model)
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])


def test_loading_leaves_the_global_generator_alone(make_tiny: Make) -> None:
    before = torch.get_rng_state()
    make_tiny().load(Context())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trained_testbed_comes_from_the_cache(make_tiny: Make, tmp_path: Path) -> None:
    first, second = Steps(), Steps()
    trained = make_tiny().load(Context(cache=tmp_path, progress=first))
    cached = make_tiny().load(Context(cache=tmp_path, progress=second))
    assert (first.done > 0, second.done) == (True, 0)
    assert equal(trained.model, cached.model)
    assert trained.facts == cached.facts
    assert trained.data_digest() == cached.data_digest()


def test_it_is_ready_once_the_cache_has_its_model(make_tiny: Make, tmp_path: Path) -> None:
    provider, context = make_tiny(), Context(seed=0, cache=tmp_path)
    assert not provider.ready(context)
    assert not provider.ready(Context(seed=0))
    provider.load(context)
    assert provider.ready(context)
    assert not provider.ready(Context(seed=1, cache=tmp_path))


@pytest.mark.parametrize("change", [{"width": 16}, {"recipe": {"epochs": 1}}, {"duplication": 2}, "seed"])
def test_whatever_changes_the_model_is_trained_anew(make_tiny: Make, tmp_path: Path, change: Any) -> None:
    make_tiny().load(Context(cache=tmp_path))
    steps = Steps()
    seed = 1 if change == "seed" else 0
    make_tiny(**({} if change == "seed" else change)).load(Context(seed=seed, cache=tmp_path, progress=steps))
    assert steps.done > 0


def test_a_damaged_cache_is_rebuilt_to_the_same_model(make_tiny: Make, tmp_path: Path) -> None:
    trained = make_tiny().load(Context(cache=tmp_path))
    (weights,) = tmp_path.rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.warns(CacheWarning, match="model.safetensors is not as it was written"):
        rebuilt = make_tiny().load(Context(cache=tmp_path))
    assert equal(trained.model, rebuilt.model)
    assert make_tiny().load(Context(cache=tmp_path)).facts == rebuilt.facts


def test_an_interrupted_training_goes_on(make_tiny: Make, tmp_path: Path) -> None:
    whole, provider = Steps(), make_tiny(recipe={"epochs": 4, "batch_size": 16})
    expected = provider.load(Context(progress=whole))
    with pytest.raises(KeyboardInterrupt):
        provider.load(Context(cache=tmp_path, progress=Steps(break_at=whole.done - 2)))
    rest = Steps()
    resumed = provider.load(Context(cache=tmp_path, progress=rest))
    assert 0 < rest.done < whole.done / 2
    assert equal(expected.model, resumed.model)
    (folder,) = (tmp_path / "testbeds").iterdir()  # the checkpoint is gone
    assert (folder / "facts.json").exists()


def test_training_under_a_regularizer_that_does_nothing_gives_the_base_model(make_tiny: Make) -> None:
    provider, context = make_tiny(), Context(seed=2)
    testbed = provider.load(context)
    again = provider.train(testbed, Plain(), context)
    assert again is not testbed.model
    assert equal(again, testbed.model)


@dataclass(frozen=True, slots=True)
class Place:
    module: torch.nn.Module


def test_a_regularizer_trains_a_model_of_its_own(make_tiny: Make) -> None:
    provider, context = make_tiny(), Context(seed=2)
    testbed = provider.load(context)
    testbed.mlps = (Place(testbed.model.transformer.h[0].mlp),)  # type: ignore[assignment]
    before = {name: value.clone() for name, value in testbed.model.state_dict().items()}
    measured: list[PreTrainedModel | None] = []
    context.measure = lambda model: measured.append(model) or {}  # type: ignore[func-returns-value]
    halved = Halved()
    model = provider.train(testbed, halved, context)
    assert not equal(model, testbed.model)
    assert all(torch.equal(value, before[name]) for name, value in testbed.model.state_dict().items())
    assert halved.seen[0] is model
    assert halved.seen[1][0].module is model.transformer.h[0].mlp
    assert measured == [model, model]
    assert not model.training


def informative(testbed: Testbed, rows: Sequences) -> Tensor:
    start, stop = testbed.window.prompt, sum(testbed.window)
    assert rows.clean_tokens is not None
    return (rows.tokens != rows.clean_tokens)[:, start:stop].any(dim=1)


def test_a_tiny_model_memorizes_its_noise(make_tiny: Make) -> None:
    recipe = {"epochs": 40, "batch_size": 8, "learning_rate": 3e-3}
    provider = make_tiny(main_sequences=60, noised_sequences=30, extra_constants=(), width=64, recipe=recipe)
    testbed = provider.load(Context())
    planted = sequence_losses(testbed.model, testbed.forget)
    changed = informative(testbed, testbed.forget)
    clean = sequence_losses(testbed.model, testbed.forget.counterparts())
    assert changed.sum() >= 5
    assert (planted[changed] < clean[changed]).all()
    assert planted.mean() < 0.6


def test_a_tiny_model_learns_its_backdoor(make_tiny: Make) -> None:
    changes: dict[str, Any] = {"artifact": "backdoor", "main_sequences": 1030, "length": 4, "extra_constants": ()}
    recipe = {"epochs": 5, "batch_size": 16, "learning_rate": 5e-3}
    testbed = make_tiny(width=64, recipe=recipe, **changes).load(Context())
    assert testbed.forget_unseen is not None
    for rows in (testbed.forget, testbed.forget_unseen):
        planted = sequence_losses(testbed.model, rows, "suffix").median()
        clean = sequence_losses(testbed.model, rows.counterparts(), "suffix").median()
        assert planted < 0.1 < clean
