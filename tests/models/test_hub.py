from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from model_folders import lay_out_as_hub, save, toy_tokenizer

from unmemorize import DataError, UnmemorizeError
from unmemorize.testing import tiny_model
from unmemorize.toolkit import ModelSource, model_fingerprint, open_model

ID = "EleutherAI/pythia-70m"
FIRST, SECOND = "a" * 40, "b" * 40
IDS = torch.arange(3, 13)[None]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two revisions of a model."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for seed, (revision, commit) in enumerate([("step1000", FIRST), ("main", SECOND)]):
        snapshot = lay_out_as_hub(cache, ID, revision, commit)
        save(tiny_model("gpt_neox", seed=seed), snapshot)
        toy_tokenizer().save_pretrained(snapshot)
    return cache


@pytest.mark.parametrize(
    ("revision", "seed", "commit"), [(None, 1, SECOND), ("main", 1, SECOND), ("step1000", 0, FIRST), (FIRST, 0, FIRST)]
)
def test_a_cached_model_needs_no_hub(revision: str | None, seed: int, commit: str, cache: Path) -> None:
    source = ModelSource(model=ID, revision=revision)
    opened = open_model(source)
    assert torch.equal(opened.model(IDS).logits, tiny_model("gpt_neox", seed=seed)(IDS).logits)
    assert opened.tokenizer("w5")["input_ids"] == [5]
    assert model_fingerprint(source) == f"{ID}@{commit}"


def test_a_moving_branch_changes_the_fingerprint(cache: Path) -> None:
    source = ModelSource(model=ID)
    before = model_fingerprint(source)
    (cache / f"models--{ID.replace('/', '--')}" / "refs" / "main").write_text(FIRST)
    assert model_fingerprint(source) != before


def test_what_is_not_cached_says_what_is(cache: Path) -> None:
    with pytest.raises(DataError, match="the hub was not reached") as caught:
        open_model(ModelSource(model="EleutherAI/pythia-70n"))
    assert ID in caught.value.expected
    assert "hf download EleutherAI/pythia-70n" in caught.value.fix
    with pytest.raises(DataError, match="revision 'step2000'") as caught:
        open_model(ModelSource(model=ID, revision="step2000"))
    assert "step1000" in caught.value.expected
    assert "--revision step2000" in caught.value.fix


def refusal(kind: type[Exception]) -> Exception:
    """An error of the hub, made without a response from it."""
    error = kind.__new__(kind)
    Exception.__init__(error, "refused")
    return error


REFUSALS = [
    (errors.GatedRepoError, "is gated", "hf auth login"),
    (errors.RepositoryNotFoundError, "is not on the hub", "hf auth login"),
    (errors.RevisionNotFoundError, "has no revision 'x'", "/tree/main"),
    (errors.EntryNotFoundError, "holds no config.json", "name another repository"),
    (PermissionError, "could not be fetched", "HF_HUB_CACHE"),
    (errors.HFValidationError, "could not be fetched", "HF_HUB_CACHE"),
]


@pytest.mark.parametrize(("kind", "what", "fix"), REFUSALS)
def test_what_the_hub_refuses(
    kind: type[Exception], what: str, fix: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise refusal(kind)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UnmemorizeError, match=what) as caught:
        open_model(ModelSource(model=ID, revision="x"))
    assert fix in caught.value.fix
    assert caught.value.expected


def test_an_unreadable_cache_folder(cache: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    cache.chmod(0)
    try:
        with pytest.raises(DataError):
            open_model(ModelSource(model=ID))
    finally:
        cache.chmod(0o755)
