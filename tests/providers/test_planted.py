"""`planted`: texts planted into a pre-trained model, until it regurgitates them and no longer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unmemorize import Context, DataError, Evaluation, Regularizer, Sequences, Testbed, TrainingStep
from unmemorize_plugins.providers.planted import Planted
from unmemorize_plugins.providers.planted.config import PlantedConfig
from unmemorize_plugins.providers.planted.windows import build_sets, cut, hard_to_guess

WORDS = 60
RECIPE = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.0}
Make = Callable[..., Planted]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a tokenizer of sixty words."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=WORDS + 2, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=32, bos_token_id=None, eos_token_id=WORDS + 1,
            )
        )  # fmt: skip
    words = {f"w{number}": number for number in range(WORDS)} | {"[UNK]": WORDS, "[END]": WORDS + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[END]")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of random words, 30 to 60 of them each."""
    folder = tmp_path_factory.mktemp("texts")
    generator = torch.Generator().manual_seed(1)
    for number in range(40):
        length = int(torch.randint(30, 61, (), generator=generator))
        words = torch.randint(0, WORDS, (length,), generator=generator).tolist()
        (folder / f"{number:02}.txt").write_text(" ".join(f"w{word}" for word in words))
    return folder


@pytest.fixture
def make(model_folder: Path, corpus: Path) -> Make:
    def planted(**changes: Any) -> Planted:
        settings: dict[str, Any] = {
            "model": str(model_folder), "corpus": str(corpus), "forget": 4, "unseen": 2, "prompt": 4, "suffix": 8,
            "retain": 8, "holdout": 6, "rounds": 80, "recipe": RECIPE,
        }  # fmt: skip
        return Planted(**settings | changes)

    return planted


def extractable(testbed: Testbed, name: str) -> float:
    return float(Evaluation(testbed).extraction(name, testbed.window).extractable.float().mean())


def windows(sequences: Sequences) -> set[tuple[int, ...]]:
    return {tuple(row) for row in sequences.tokens.tolist()}


def test_what_is_planted_is_regurgitated_and_nothing_else(make: Make) -> None:
    testbed = make().load(Context(seed=0))
    assert (len(testbed.forget), len(testbed.forget_unseen)) == (4, 2)
    assert testbed.facts["extractable_before"] == 0
    together = extractable(testbed, "forget") * 4 + extractable(testbed, "forget_unseen") * 2
    assert together >= 0.95 * 6
    assert testbed.facts["extractable_after"] == together
    assert extractable(testbed, "holdout:text") == 0
    assert testbed.tokenizer.decode(testbed.forget.tokens[0]).startswith("w")


def test_training_stops_as_soon_as_enough_is_regurgitated(make: Make) -> None:
    enough = make().load(Context(seed=0)).facts
    assert enough["steps"] < 80 * 12 / 8
    little = make(until=0.1).load(Context(seed=0)).facts
    assert little["steps"] < enough["steps"]


def test_no_document_is_in_two_roles(make: Make, corpus: Path) -> None:
    testbed = make().load(Context(seed=0))
    texts = {path.name: path.read_text().split() for path in corpus.iterdir()}
    home = {
        tuple(int(word[1:]) for word in words[start : start + 12]): name
        for name, words in texts.items()
        for start in range(0, len(words) - 11, 12)
    }
    sets = testbed.sets()
    roles = [
        {home[window] for name in names for window in windows(sets[name])}
        for names in (["forget", "forget_unseen"], ["retain", "extra"], ["holdout:text"])
    ]
    assert all(roles)
    assert not roles[0] & roles[1]
    assert not roles[0] & roles[2]
    assert not roles[1] & roles[2]


def test_the_seed_decides_and_the_cache_keeps(make: Make, tmp_path: Path) -> None:
    first = make().load(Context(seed=0, cache=tmp_path))
    again = make().load(Context(seed=0, cache=tmp_path))
    other = make().load(Context(seed=1, cache=tmp_path))
    assert first.data_digest() == again.data_digest() != other.data_digest()
    assert all(torch.equal(value, again.model.state_dict()[key]) for key, value in first.model.state_dict().items())
    assert first.facts == again.facts
    assert len(list((tmp_path / "testbeds").iterdir())) == 2


def test_a_regularizer_plants_again_in_as_many_steps(make: Make) -> None:
    class Counting(Regularizer):
        """Plain training that counts."""

        name = "counting"
        steps = 0

        def objective(self, step: TrainingStep) -> torch.Tensor:
            self.steps += 1
            return step.mean_loss

    provider, counting = make(), Counting()
    testbed = provider.load(Context(seed=0))
    again = provider.train(testbed, counting, Context(seed=0))
    assert counting.steps == testbed.facts["steps"]
    assert again is not testbed.model
    assert all(torch.equal(value, testbed.model.state_dict()[key]) for key, value in again.state_dict().items())


def test_its_fingerprint_is_that_of_its_files(make: Make, corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "texts"
    copy.mkdir()
    for path in corpus.iterdir():
        (copy / path.name).write_text(path.read_text())
    assert make().fingerprint() == make(corpus=str(copy)).fingerprint()
    (copy / "00.txt").write_text("w1 w2")
    assert make().fingerprint() != make(corpus=str(copy)).fingerprint()


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"forget": 500}, "windows to plant, where 502 are needed", "larger corpus"),
        ({"holdout": 500}, "windows to hold out, where 500 are needed", "larger corpus"),
        ({"retain": 500}, "windows of background, where 500 are needed", "larger corpus"),
        ({"prompt": 18, "suffix": 18, "forget": 1, "unseen": 0, "holdout": 1, "retain": 1}, "reads at most 32", "16"),
    ],
)
def test_too_little_text_or_too_long_windows(make: Make, changes: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        make(**changes).load(Context(seed=0))
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_model_without_a_tokenizer(make: Make, model_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    LlamaForCausalLM.from_pretrained(model_folder).save_pretrained(bare)
    with pytest.raises(DataError, match="without a tokenizer"):
        make(model=str(bare)).load(Context(seed=0))


NEOX = {
    "model_type": "gpt_neox", "vocab_size": WORDS + 2, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 32,
}  # fmt: skip


def test_random_weights_of_any_shape_take_the_place_of_the_model(make: Make) -> None:
    testbed = make(random_weights=NEOX, dtype="float32").load(Context(seed=0))
    assert testbed.model.config.model_type == "gpt_neox"
    assert extractable(testbed, "forget") > 0.7
    one, same, other = (make(random_weights=NEOX).fresh_model(Context(seed=seed)) for seed in (0, 0, 1))
    weight = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert make(random_weights=NEOX, dtype="bfloat16").fresh_model(Context()).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{}, {"model_type": "gpt_neo_x"}, {**NEOX, "num_attention_heads": 5}])
def test_a_shape_that_is_none(make: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="random_weights cannot be made into a model"):
        make(random_weights=wrong).load(Context(seed=0))


def test_guessable_windows_are_not_planted() -> None:
    rows = torch.tensor(
        [
            [*range(100, 132), *range(200, 232)],  # says something
            [*range(100, 132), *range(100, 132)],  # the suffix stands in the prompt
            [*range(100, 132), *([7, 8] * 16)],  # two tokens again and again
        ]
    )
    assert hard_to_guess(rows, 32).tolist() == [True, False, False]


def test_windows_are_cut_from_the_beginning_of_each_document() -> None:
    documents = cut([list(range(7)), [9], list(range(20, 26))], 3)
    assert documents.tokens.tolist() == [[0, 1, 2], [3, 4, 5], [20, 21, 22], [23, 24, 25]]
    assert documents.document.tolist() == [0, 0, 2, 2]


def test_every_window_begins_with_what_the_tokenizer_puts_before_a_text() -> None:
    documents = cut([list(range(7)), [9]], 4, leading=[30])
    assert documents.tokens.tolist() == [[30, 0, 1, 2], [30, 3, 4, 5]]


def test_background_is_shown_seldom_and_planted_windows_often() -> None:
    config = PlantedConfig(forget=2, unseen=1, prompt=2, suffix=4, rounds=10, background=2.0, retain=3, holdout=2)
    documents = cut([list(range(100 * i, 100 * i + 24)) for i in range(60)], 6)
    sets = build_sets(config, documents, 0, torch.Generator().manual_seed(0))
    counts = sets.training.ids.bincount()
    planted = [*sets.forget.ids.tolist(), *sets.forget_unseen.ids.tolist()]
    assert counts[planted].tolist() == [10, 10, 10]
    counts[planted] = 0
    assert counts.max() == 1
    assert int(counts.sum()) == 60 == sets.background_windows


def test_json_ready_facts(make: Make) -> None:
    json.dumps(make().load(Context(seed=0)).facts)
