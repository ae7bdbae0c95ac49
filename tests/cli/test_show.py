from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from transformers import AutoConfig, AutoModelForCausalLM

from unmemorize.errors import BrokenPluginError, UnknownNameError

Command = Callable[..., Result]


def test_a_method_is_shown_whole(run_command: Command, workplace: Path) -> None:
    output = run_command("show", "prune", "--plugin", "third_party.py").output
    for text in (
        "prune (method)",
        "Prunes [what] is left. It does so twice.\n\nMore about it.",
        "paper:     Pruner 2024",
        "stage:     unlearn",
        "needs:     forget, retain",
        "from:      third_party.py ",
        f"file:      {workplace / 'third_party.py'}",
    ):
        assert text in output
    (ratio,) = [line for line in output.splitlines() if line.startswith("ratio ") and "removed" in line]
    assert ratio.split() == [
        "ratio",
        "number",
        "0.05",
        ">",
        "0,",
        "<=",
        "1",
        "Fraction",
        "that",
        "is",
        "removed.",
    ]


def test_a_name_of_two_kinds_shows_both(run_command: Command) -> None:
    output = run_command("show", "prune", "--plugin", "third_party.py").output
    assert "prune (method)" in output
    assert "prune (provider)" in output
    assert len(json.loads(run_command("show", "prune", "--plugin", "third_party.py", "--json").output)) == 2


def test_the_snippet_is_toml(run_command: Command) -> None:
    output = run_command("show", "prune", "--plugin", "third_party.py").output
    method, provider = (part.split("\n\n\n")[0] for part in output.split("In a suite:\n\n")[1:])
    assert tomllib.loads(method.split("\nprune (")[0]) == {"method": {"prune": {"ratio": 0.05}}}
    assert tomllib.loads(provider) == {"testbed": {"mine": {"provider": "prune"}}}


def test_a_metric_shows_kind_range_and_direction(run_command: Command) -> None:
    output = run_command("show", "echo", "--plugin", "third_party.py").output
    assert "kind:      memorization" in output
    assert "range:     0 to 100, lower is better" in output
    assert "It has no settings." in output


def test_a_provider_says_whether_it_trains(run_command: Command) -> None:
    output = run_command("show", "clay", "--plugin", "third_party.py").output
    assert "trains:    no" in output


def test_a_suite_is_summed_up(run_command: Command) -> None:
    output = run_command("show", "mine.toml").output
    for text in (
        "mine (suite)",
        "What I compare.",
        "testbeds:  noise (clay)",
        "methods:   base, prune (2 configurations)",
        "metrics:   echo, sense",
        "score:     echo against sense",
        "seeds:     0, 1",
    ):
        assert text in output


def test_json_is_the_schema_of_the_settings(run_command: Command) -> None:
    schema = json.loads(run_command("show", "echo", "--plugin", "third_party.py", "--json").output)
    assert schema["properties"] == {}
    schema = json.loads(run_command("show", "prune", "--plugin", "third_party.py", "--json").output)[0]
    assert schema["properties"]["ratio"]["exclusiveMinimum"] == 0
    assert schema["properties"]["ratio"]["description"] == "Fraction that is removed."


def test_an_unknown_name_shows_near_ones(run_command: Command) -> None:
    with pytest.raises(UnknownNameError, match="is called 'prun'") as caught:
        run_command("show", "prun", "--plugin", "third_party.py")
    assert caught.value.expected.startswith("one of prune")


@pytest.mark.usefixtures("with_broken_plugin")
def test_the_name_of_a_broken_plugin_says_why(run_command: Command) -> None:
    with pytest.raises(BrokenPluginError, match="RuntimeError: boom"):
        run_command("show", "shaky")
    with pytest.raises(UnknownNameError, match="because broken: plugin 'shaky'"):
        run_command("show", "no_such_thing")


def test_every_registered_thing_can_be_shown(run_command: Command) -> None:
    listed = json.loads(run_command("list", "--json").output)
    names = [row["name"] for kind in ("methods", "metrics", "providers", "executors", "suites") for row in listed[kind]]
    for name in names:
        assert f"{name} (" in run_command("show", name).output
        json.loads(run_command("show", name, "--json").output)


def test_a_layout_is_shown_as_it_is_written_in_a_plugin(run_command: Command) -> None:
    assert "Layout(model_types=('gpt2', 'gpt_bigcode'), blocks='transformer.h'" in run_command("show", "gpt2").output


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("llama", "by the layout of 'llama'"),
        ("mamba", "Methods that act on this model, with the data that they need: "),
    ],
)
def test_a_folder_shows_where_the_mlps_of_its_model_are(
    run_command: Command, tmp_path: Path, kind: str, shown: str
) -> None:
    config = AutoConfig.for_model(kind, vocab_size=29, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                  intermediate_size=24, state_size=4)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    assert shown in run_command("show", str(tmp_path / "model")).output
