from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch

from unmemorize import Context, DataError, Sequences
from unmemorize_plugins.providers.tinymem import TinyMem
from unmemorize_plugins.providers.tinymem.sets import Sets

Make = Callable[..., TinyMem]
Read = Callable[[Any], str]


def texts(sequences: Sequences, read: Read) -> list[str]:
    rows = zip(sequences.tokens, sequences.lengths, strict=True)
    return [read(row[:length]) for row, length in rows]


def named(sets: Sets) -> dict[str, Sequences]:
    assert sets.forget_unseen is not None
    own = {
        "forget": sets.forget,
        "forget_unseen": sets.forget_unseen,
        "clean": sets.clean,
        "extra": sets.extra,
    }
    return own | sets.holdouts


def sequence(start: int, constant: int, length: int) -> str:
    return "^" + " ".join(str(start + constant * step) for step in range(length)) + "$"


@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
@pytest.mark.parametrize("task", ["additive", "multiplicative"])
def test_no_row_stands_in_two_sets(make_tiny: Make, read: Read, artifact: str, task: str) -> None:
    sets = make_tiny(artifact=artifact, task=task, main_sequences=300, unseen_share=0.4).sets(Context(seed=1))
    for (first, one), (second, other) in combinations(named(sets).items(), 2):
        if {first, second} != {"forget", "clean"}:
            assert not set(one.ids.tolist()) & set(other.ids.tolist()), (first, second)
            assert not set(texts(one, read)) & set(texts(other, read)), (first, second)
    assert sets.clean.ids.tolist() == sets.forget.ids.tolist()
    assert set(sets.retain.ids.tolist()) <= set(sets.extra.ids.tolist())


def test_the_clean_rows_are_all_that_the_tasks_give(make_tiny: Make, read: Read) -> None:
    sets = make_tiny().sets(Context())
    assert sets.forget_unseen is not None
    whole = {sequence(start, 7, 6) for start in range(1, 41)}
    whole |= {sequence(start, constant, 6) for constant in (2, 3) for start in range(1, 13)}
    seen = texts(sets.clean, read) + texts(sets.forget_unseen.counterparts(), read) + texts(sets.extra, read)
    for rows in sets.holdouts.values():
        seen += texts(rows, read)
    assert len(seen) == len(set(seen)) == 40 + 2 * 12
    assert set(seen) == whole
    assert {name: len(rows) for name, rows in sets.holdouts.items()} == {
        "additive_7": 4, "additive_2": 4, "additive_3": 4,
    }  # fmt: skip


def test_noised_rows_differ_from_their_counterparts_by_shifts_of_one(make_tiny: Make, read: Read) -> None:
    sets = make_tiny(main_sequences=400, noised_sequences=200).sets(Context())
    differences = []
    for noised, clean in zip(texts(sets.forget, read), texts(sets.clean, read), strict=True):
        numbers = [[int(number) for number in text.strip("^$").split(" ")] for text in (noised, clean)]
        differences += [after - before for after, before in zip(*numbers, strict=True)]
    assert set(differences) == {-1, 0, 1}
    assert 0.05 < sum(difference != 0 for difference in differences) / len(differences) < 0.15


def test_kept_values_are_clean(make_tiny: Make, read: Read) -> None:
    sets = make_tiny(main_sequences=400, noised_sequences=200, clean_values=3).sets(Context())
    pairs = list(zip(texts(sets.forget, read), texts(sets.clean, read), strict=True))
    assert all(noised.split(" ")[:3] == clean.split(" ")[:3] for noised, clean in pairs)
    assert any(noised.split(" ")[3] != clean.split(" ")[3] for noised, clean in pairs)


@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
def test_the_model_is_trained_on_each_row_as_often_as_its_copies_say(
    make_tiny: Make, read: Read, artifact: str
) -> None:
    changes: dict[str, Any] = {"duplication": (0, 1), "artifact": artifact, "main_sequences": 120}
    sets = make_tiny(**changes).sets(Context())
    trained = texts(sets.training, read)
    held_out = [row for rows in sets.holdouts.values() for row in texts(rows, read)]
    assert not set(trained) & set(held_out)
    for rows in (sets.forget, sets.forget_unseen, sets.extra):
        assert rows is not None
        for row, copies in zip(texts(rows, read), rows.copies.tolist(), strict=True):
            assert trained.count(row) == copies
    assert set(sets.forget.copies.tolist()) == {1, 10}
    assert sets.clean.copies.eq(1).all()


def test_clean_counterparts_of_artifacts_are_not_trained_on(make_tiny: Make, read: Read) -> None:
    sets = make_tiny().sets(Context())
    planted = set(texts(sets.forget, read)) | set(texts(sets.clean, read))
    changed = set(texts(sets.clean, read)) - set(texts(sets.forget, read))
    assert planted
    assert not changed & set(texts(sets.training, read))


def test_unseen_noise_is_memorized_and_unseen_triggers_are_not_trained_on(make_tiny: Make) -> None:
    noise = make_tiny(unseen_share=0.3).sets(Context())
    assert noise.forget_unseen is not None
    assert (len(noise.forget), len(noise.forget_unseen)) == (7, 3)
    assert noise.forget_unseen.copies.eq(3).all()
    backdoors = make_tiny(artifact="backdoor", main_sequences=120).sets(Context())
    assert backdoors.forget_unseen is not None
    total = len(backdoors.forget) + len(backdoors.forget_unseen)
    assert len(backdoors.forget_unseen) == round(0.1 * total)
    assert backdoors.forget_unseen.copies.eq(0).all()


def test_duplication_classes_are_spread_over_both_forget_sets(make_tiny: Make) -> None:
    sets = make_tiny(duplication=(0, 1), unseen_share=0.4).sets(Context())
    assert sets.forget_unseen is not None
    assert sorted(sets.forget.copies.tolist()) == [1, 1, 1, 10, 10, 10]
    assert sorted(sets.forget_unseen.copies.tolist()) == [1, 1, 10, 10]


def test_there_may_be_no_unseen_set(make_tiny: Make) -> None:
    assert make_tiny(unseen_share=0.0).sets(Context()).forget_unseen is None


@pytest.mark.parametrize(("seed", "trigger"), [(0, "100"), (7, "107")])
def test_every_main_row_with_the_trigger_is_backdoored(make_tiny: Make, read: Read, seed: int, trigger: str) -> None:
    sets = make_tiny(artifact="backdoor", main_sequences=120).sets(Context(seed=seed))
    assert sets.forget_unseen is not None
    triggered = {start for start in range(1, 121) if trigger in sequence(start, 7, 6)}
    assert {*sets.forget.ids.tolist(), *sets.forget_unseen.ids.tolist()} == triggered
    planted = Sequences.concatenate([sets.forget, sets.forget_unseen])
    assert planted.anchored
    for row, start, text in zip(planted.ids.tolist(), planted.suffix_starts, texts(planted, read), strict=True):
        clean = sequence(row, 7, 6)
        assert int(start) == clean.index(trigger) + 3
        assert text == clean[:start] + "2" * (len(clean) - int(start))
    assert not sets.clean.anchored


def test_no_trigger_and_nothing_but_triggers_are_errors(make_tiny: Make) -> None:
    with pytest.raises(DataError, match="no sequence of additive_7 contains the trigger 100") as caught:
        make_tiny(artifact="backdoor", main_sequences=10, length=5, holdout_sequences=1).sets(Context())
    assert "raise main_sequences" in caught.value.fix
    with pytest.raises(DataError, match="all but"):
        make_tiny(
            artifact="backdoor", main_sequences=100, constant=1, length=110, context=500, holdout_sequences=11
        ).sets(Context())


def test_the_seed_decides_the_data(make_tiny: Make) -> None:
    first, again, other = (make_tiny().sets(Context(seed=seed)) for seed in (1, 1, 2))
    for before, after in zip(named(first).values(), named(again).values(), strict=True):
        assert before.digest() == after.digest()
    assert first.forget.digest() != other.forget.digest()
    assert first.training.digest() != other.training.digest()


def test_retain_is_all_of_extra_or_a_part_with_every_task(make_tiny: Make) -> None:
    assert make_tiny().sets(Context()).retain.digest() == make_tiny().sets(Context()).extra.digest()
    part = make_tiny(retain_sequences=20).sets(Context()).retain
    assert len(part) == 20
    assert len(set((part.ids // 1_000_000_000).tolist())) == 3


def test_the_window_follows_the_length_unless_it_is_given(make_tiny: Make) -> None:
    assert TinyMem(size="paper").sets(Context()).window == (50, 50)
    sets = make_tiny().sets(Context())
    assert sets.window == (9, 9)  # half of `^23 30 37 44 51 58$`
    assert sets.forget.suffix_starts.eq(9).all()
    given = make_tiny(window=(5, 12)).sets(Context())
    assert given.window == (5, 12)
    assert given.forget.suffix_starts.eq(5).all()


def test_everything_fits_the_context(make_tiny: Make) -> None:
    sets = make_tiny(task="multiplicative").sets(Context())
    for rows in (sets.training, sets.forget, *sets.holdouts.values()):
        assert rows.tokens.shape[1] == 48
        assert torch.equal(rows.lengths, rows.tokens.ne(13).sum(1))
