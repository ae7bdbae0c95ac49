"""The tiny model that memorizes: it regurgitates what it should, is kept, and is trained again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unmemorize import Context, Evaluation, Regularizer, Testbed
from unmemorize.errors import CacheWarning
from unmemorize.testing import ARCHITECTURES, Architecture, memorizing, memorizing_testbed
from unmemorize.testing.memorizing import Memorizing
from unmemorize.testing.trial import accuracy


def extractable(testbed: Testbed, name: str) -> float:
    return float(Evaluation(testbed).extraction(name, testbed.window).extractable.float().mean())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_regurgitates_what_was_planted_and_knows_the_rule(architecture: Architecture) -> None:
    testbed = memorizing_testbed(architecture)
    assert extractable(testbed, "forget") == 1
    assert extractable(testbed, "forget_unseen") == 1
    assert accuracy(testbed) > 0.6
    assert len(testbed.mlps) == 2
    assert testbed.model.config.model_type == architecture
    assert not testbed.model.training


def test_it_does_so_for_other_seeds_with_other_rows() -> None:
    first, second = memorizing_testbed(), memorizing_testbed(seed=1)
    assert extractable(second, "forget") >= 0.9
    assert first.data_digest() != second.data_digest()


def test_no_two_copies_share_anything() -> None:
    first = memorizing_testbed()
    first.forget.tokens.zero_()
    first.mlps[0].down.weight.data.zero_()
    second = memorizing_testbed()
    assert extractable(second, "forget") == 1
    assert second.mlps[0].down.weight is second.model.get_parameter(second.mlps[0].down.name)


def test_the_tokenizer_speaks_in_numbers() -> None:
    testbed = memorizing_testbed()
    assert testbed.tokenizer("3 14 31")["input_ids"] == [3, 14, 31]
    assert testbed.tokenizer.pad_token_id == testbed.pad_id


def test_weights_can_have_another_dtype() -> None:
    testbed = memorizing_testbed(dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in testbed.model.parameters()} == {torch.bfloat16}
    assert extractable(testbed, "forget") > 0.5


def count_trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every training."""
    trained: list[int] = []
    plain = memorizing.train

    def train(*arguments: object, **options: object) -> object:
        trained.append(1)
        return plain(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(memorizing, "train", train)
    return trained


def test_it_is_trained_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = count_trainings(monkeypatch)
    first, second = (Memorizing().load(Context(cache=tmp_path)) for _ in range(2))
    assert len(trained) == 1
    assert all(torch.equal(*pair) for pair in zip(first.model.parameters(), second.model.parameters(), strict=True))
    (kept,) = (tmp_path / "testing").iterdir()
    (kept / "model.safetensors").write_bytes(b"damaged")
    with pytest.warns(CacheWarning, match="not as it was written"):
        third = Memorizing().load(Context(cache=tmp_path))
    assert len(trained) == 2
    assert extractable(third, "forget") == 1


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "testing").write_text("in the way")
    with pytest.warns(CacheWarning, match="cannot be written"):
        assert extractable(Memorizing().load(Context(cache=tmp_path)), "forget") == 1


class Plain(Regularizer):
    """Nothing but training."""

    name = "plain"


def test_it_is_trained_again_from_the_same_start() -> None:
    testbed = memorizing_testbed()
    before = testbed.model.state_dict()["transformer.wte.weight"].clone()
    model = Memorizing().train(testbed, Plain(), Context())
    assert model is not testbed.model
    assert torch.equal(before, testbed.model.state_dict()["transformer.wte.weight"])
    testbed.model = model
    assert extractable(testbed, "forget") == 1
