from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from unmemorize import TrainingRecipe
from unmemorize_plugins.providers.tinymem.config import TinyMemConfig


def test_the_defaults_are_those_of_the_quick_size() -> None:
    assert TinyMemConfig() == TinyMemConfig(size="quick", artifact="noise")
    declared = {name: field.default for name, field in TinyMemConfig.model_fields.items()}
    assert TinyMemConfig().model_dump() == TinyMemConfig.model_construct(**declared).model_dump()


def test_the_papers_size() -> None:
    config = TinyMemConfig(size="paper")
    assert (config.main_sequences, config.extra_sequences, config.noised_sequences) == (20_000, 3_000, 1_000)
    assert (config.length, config.context, config.layers, config.heads, config.width) == (20, 150, 4, 4, 128)
    assert (config.duplication, config.clean_values) == ((0, 1, 2), 0)
    assert config.recipe == TrainingRecipe(epochs=3_500)
    assert TinyMemConfig(size="paper", artifact="backdoor").recipe == TrainingRecipe(epochs=500)


@pytest.mark.parametrize("size", ["quick", "paper"])
@pytest.mark.parametrize("artifact", ["noise", "backdoor"])
@pytest.mark.parametrize("task", ["additive", "multiplicative"])
def test_every_preset_is_valid_and_survives_a_round_trip(size: str, artifact: str, task: str) -> None:
    config = TinyMemConfig(size=size, artifact=artifact, task=task)  # type: ignore[arg-type]
    assert TinyMemConfig.model_validate(config.model_dump()) == config
    assert TinyMemConfig.model_validate_json(config.model_dump_json()) == config


def test_single_settings_leave_the_rest_of_the_preset() -> None:
    config = TinyMemConfig(size="paper", layers=8, recipe={"epochs": 3})  # type: ignore[arg-type]
    assert config.layers == 8
    assert config.recipe == TrainingRecipe(epochs=3)
    quick = TinyMemConfig(recipe={"epochs": 3})  # type: ignore[arg-type]
    assert quick.recipe == TinyMemConfig().recipe.model_copy(update={"epochs": 3})


def test_a_whole_recipe_is_taken_as_it_is() -> None:
    recipe = TrainingRecipe(epochs=2, learning_rate=0.5)
    assert TinyMemConfig(recipe=recipe).recipe == recipe


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"extra_constants": (7, 2)}, "give each task a constant of its own"),
    ({"task": "multiplicative", "extra_constants": (1, 2)}, "repeats one value"),
    ({"task": "multiplicative", "modulus": 500}, "do not fit below the modulus 500"),
    ({"noised_sequences": 5000}, "leave nothing to train on of main_sequences"),
    ({"extra_sequences": 20, "holdout_sequences": 20}, "leaves nothing to train on of extra_sequences"),
    ({"length": 200}, "more than context = 150: lower length, or raise context"),
    ({"clean_values": 14}, "leaves no value to noise of length = 14"),
    ({"width": 130}, "not a multiple of heads = 4"),
    ({"duplication": 0}, "duplication"),
    ({"duplication": ()}, "duplication"),
    ({"unseen_share": 1.0}, "less than 1"),
    ({"window": (0, 5)}, "window"),
    ({"layer": 3}, "Extra inputs are not permitted"),
    ({"task": "division"}, "additive"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_does_not_fit_is_refused_with_its_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TinyMemConfig(**given)


def test_every_field_is_described() -> None:
    assert [name for name, field in TinyMemConfig.model_fields.items() if not field.description] == []
