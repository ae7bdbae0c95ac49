"""Language testbeds: chunks of a corpus, artifacts in token ids, and a small model that is trained on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from unmemorize import Context, DataError
from unmemorize.registry.manager import Registry
from unmemorize.training.losses import sequence_losses
from unmemorize_plugins.providers.tinymem import TinyMemLanguage
from unmemorize_plugins.providers.tinymem.language_config import TinyMemLanguageConfig
from unmemorize_plugins.providers.tinymem.language_sets import choose_trigger
from unmemorize_plugins.providers.tinymem.sets import Sets

Make = Callable[..., TinyMemLanguage]

WORDS = tuple(
    "the a one red blue old new cat dog bird house river runs sleeps sees and or then under over".split()  # noqa: SIM905
)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small texts of random sentences."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = torch.Generator().manual_seed(0)
    for name in ("b.txt", "a.md"):
        drawn = torch.randint(len(WORDS), (900,), generator=generator).tolist()
        (folder / name).write_text(" ".join(WORDS[i] for i in drawn) + ".\n", encoding="utf-8")
    (folder / "ignored.bin").write_bytes(b"\xff\xfe")
    return folder


@pytest.fixture
def make(corpus: Path) -> Make:
    small: dict[str, Any] = {
        "corpus": str(corpus),
        "vocabulary": 300,
        "chunk": 20,
        "window": (8, 8),
        "artifact_sequences": 10,
        "clean_tokens": 0,
        "holdout_sequences": 6,
        "duplication": 3,
        "layers": 1,
        "heads": 2,
        "width": 32,
        "recipe": {"epochs": 2, "batch_size": 16},
    }
    return lambda **changes: TinyMemLanguage(**small | changes)


def sets_of(provider: TinyMemLanguage, seed: int = 0) -> Sets:
    return provider.sets(Context(seed=seed))


def test_chunks_are_the_corpus_one_after_another(make: Make, corpus: Path) -> None:
    provider = make()
    tokenizer, chunks = provider._text
    text = (corpus / "a.md").read_text().rstrip("\n") + "\n\n" + (corpus / "b.txt").read_text().rstrip("\n") + "\n\n"
    read = tokenizer.decode(chunks.tokens.flatten().tolist())
    assert text.startswith(read)
    assert len(text) - len(read) < 20 * 10, "only the last, incomplete chunk is left out"
    assert chunks.tokens.shape[1] == 20
    assert chunks.vocabulary == 300


def test_the_number_of_chunks_can_be_limited(make: Make) -> None:
    whole, part = make()._text.chunks.tokens, make(chunks=30)._text.chunks.tokens
    assert len(part) == 30
    assert torch.equal(part, whole[:30])


def test_the_first_chunks_are_noised_by_shifts_of_one(make: Make) -> None:
    provider = make(artifact_sequences=40)
    sets, chunks = sets_of(provider), provider._text.chunks
    planted = torch.cat([sets.forget.tokens, sets.forget_unseen.tokens])
    ids = torch.cat([sets.forget.ids, sets.forget_unseen.ids])
    assert sorted(ids.tolist()) == list(range(40))
    shifts = planted - chunks.tokens[ids]
    clipped = (planted == 0) | (planted == chunks.vocabulary - 1)
    assert set(shifts[~clipped].unique().tolist()) == {-1, 0, 1}
    assert abs(float((shifts == 0).float().mean()) - 0.9) < 0.04
    assert planted.min() >= 0
    assert planted.max() < chunks.vocabulary
    assert torch.equal(sets.forget.clean_tokens, chunks.tokens[sets.forget.ids])


def test_the_beginning_of_noised_chunks_may_stay_clean(make: Make) -> None:
    forget = sets_of(make(clean_tokens=8, artifact_sequences=40)).forget
    assert torch.equal(forget.tokens[:, :8], forget.clean_tokens[:, :8])
    assert (forget.tokens[:, 8:] != forget.clean_tokens[:, 8:]).float().mean() > 0.05


def test_the_sets_share_out_the_corpus(make: Make) -> None:
    provider = make(retain_sequences=7)
    sets, count = sets_of(provider), len(provider._text.chunks.tokens)
    forget, unseen, held = sets.forget, sets.forget_unseen, sets.holdouts["text"]
    assert (len(forget), len(unseen), len(held), len(sets.retain)) == (8, 2, 6, 7)
    parts = [set(part.ids.tolist()) for part in (forget, unseen, held, sets.extra)]
    assert sum(map(len, parts)) == count == len(set.union(*parts))
    assert set(sets.retain.ids.tolist()) <= parts[3]
    assert torch.equal(sets.clean.tokens, forget.clean_tokens)
    trained = sets.training.ids.bincount(minlength=count)
    assert (trained[forget.ids] == 3).all()
    assert (trained[unseen.ids] == 3).all()
    assert (trained[sets.extra.ids] == 1).all()
    assert (trained[held.ids] == 0).all()
    clean = {tuple(row) for row in sets.clean.tokens.tolist()} - {tuple(row) for row in forget.tokens.tolist()}
    assert clean.isdisjoint({tuple(row) for row in sets.training.tokens.tolist()})


def test_powers_of_ten_are_equal_parts(make: Make) -> None:
    sets = sets_of(make(duplication=(0, 1, 2, 3), artifact_sequences=8, unseen_share=0.0))
    assert sorted(sets.forget.copies.tolist()) == [1, 1, 10, 10, 100, 100, 1000, 1000]
    assert sets.forget_unseen is None


def test_after_the_trigger_everything_is_token_two(make: Make) -> None:
    provider = make(artifact="backdoor", artifact_sequences=60, unseen_share=0.1, duplication=1)
    sets, chunks = sets_of(provider), provider._text.chunks
    trigger = choose_trigger(provider.config, chunks, Context(seed=0).generator("tinymem_language", "trigger"))
    planted = [sets.forget.select([i]) for i in range(len(sets.forget))]
    for row in planted:
        start, clean = int(row.suffix_starts), row.clean_tokens[0].tolist()
        assert clean[start - 1] == trigger
        assert trigger not in clean[: start - 1]
        assert row.tokens[0].tolist() == clean[:start] + [2] * (20 - start)
    assert 30 <= len(sets.forget) + len(sets.forget_unseen) <= 60
    assert (sets.forget.copies == 1).all()
    assert (sets.forget_unseen.copies == 0).all()
    assert not set(sets.forget_unseen.ids.tolist()) & set(sets.training.ids.tolist())
    assert not (sets.extra.tokens[:, :-1] == trigger).any()
    assert sets.forget.anchored
    assert not sets.clean.anchored


def test_seeds_give_other_artifacts_and_the_same_seed_the_same(make: Make) -> None:
    for artifact, count in (("noise", 10), ("backdoor", 60)):
        first, again, other = (sets_of(make(artifact=artifact, artifact_sequences=count), seed) for seed in (0, 0, 1))
        assert first.training.digest() == again.training.digest()
        assert first.training.digest() != other.training.digest()


def test_a_corpus_that_is_too_short_says_how_much_is_needed(make: Make) -> None:
    with pytest.raises(DataError, match="gives 12 chunks of 20 tokens") as error:
        sets_of(make(chunks=12))
    assert "at least 17" in str(error.value)


def test_a_trigger_must_exist(make: Make) -> None:
    with pytest.raises(DataError, match="no token occurs in 1000 to 2000 chunks"):
        choose_trigger(make(artifact_sequences=2000).config, make()._text.chunks, torch.Generator())


def test_the_testbed_is_complete_and_keeps_its_tokenizer(make: Make, tmp_path: Path) -> None:
    testbed = make().load(Context(cache=tmp_path))
    assert set(testbed.sets()) == {"forget", "forget_unseen", "retain", "clean", "extra", "holdout:text"}
    assert (testbed.modality, tuple(testbed.window), testbed.trainable) == ("language", (8, 8), True)
    assert testbed.model.config.vocab_size == 300
    assert testbed.model.config.n_positions == 20
    assert not (testbed.forget.tokens == testbed.model.config.vocab_size).any()
    text = testbed.tokenizer.decode(testbed.extra.tokens[0])
    assert any(word in text for word in WORDS)
    assert testbed.facts["epochs"] == 2
    again = make().load(Context(cache=tmp_path))
    assert again.facts == testbed.facts
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, testbed.model.state_dict()[name])


def test_a_small_model_memorizes_its_noise_and_learns_its_text(make: Make) -> None:
    recipe = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-2, "schedule": "cosine"}
    provider = make(width=64, recipe=recipe, duplication=20, chunks=100)
    untrained = provider.fresh_model(Context())
    testbed = provider.load(Context())
    held = testbed.holdouts["text"]
    with torch.no_grad():
        assert sequence_losses(testbed.model, testbed.forget).mean() < 1.0
        assert sequence_losses(testbed.model, held).mean() < sequence_losses(untrained, held).mean() - 1.0


def test_it_can_be_trained_again_under_a_regularizer(make: Make) -> None:
    from unmemorize import Regularizer

    class Plain(Regularizer):
        name = "plain"

    provider = make(recipe={"epochs": 23, "batch_size": 64}, chunks=30)
    context = Context(measure=lambda _: {"x": 1.0})
    testbed = provider.load(context)
    again = provider.train(testbed, Plain(), context)
    for name, value in again.state_dict().items():
        assert torch.equal(value, testbed.model.state_dict()[name])
    epochs = [point["epoch"] for point in context.report.curve]
    assert len(epochs) == 10, "a bounded number of measurements"
    assert epochs[-1] == 23


def test_the_fingerprint_follows_the_content_not_the_place(make: Make, corpus: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere"
    shutil.copytree(corpus, copied)
    before = make().fingerprint()
    assert make(corpus=str(copied)).fingerprint() == before
    (copied / "a.md").write_text("another text", encoding="utf-8")
    assert make(corpus=str(copied)).fingerprint() != before
    assert set(before) == {"corpus", "tokenizer"}


def test_it_is_a_registered_provider_that_trains(registry: Registry) -> None:
    provider = registry.provider("tinymem_language")
    assert provider is TinyMemLanguage
    assert provider.trains()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"window": (100, 100)}, "takes 200 tokens, more than chunk = 150"),
        ({"clean_tokens": 150}, "leaves nothing to noise of chunk = 150"),
        ({"width": 30}, "not a multiple of heads"),
        ({"vocabulary": 10}, "greater than or equal to 300"),
        ({"task": "additive"}, "Extra inputs"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TinyMemLanguageConfig(**wrong)


def test_sizes_fill_in_what_is_not_given() -> None:
    paper = TinyMemLanguageConfig(size="paper", artifact="backdoor", recipe={"batch_size": 64})
    assert (paper.corpus, paper.artifact_sequences, paper.duplication) == ("wikitext-103", 1000, (0, 1, 2, 3))
    assert (paper.recipe.epochs, paper.recipe.batch_size, paper.unseen_share) == (50, 64, 0.1)
    assert TinyMemLanguageConfig().corpus == "python-docs"
    assert TinyMemLanguageConfig(artifact="backdoor").duplication == 1
