from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from unmemorize.cli.list import first_sentence

Command = Callable[..., Result]


def test_a_third_party_is_listed_with_its_origin(run_command: Command) -> None:
    output = run_command("list", "methods", "--plugin", "third_party.py").output
    (row,) = [line for line in output.splitlines() if line.startswith("prune")]
    assert row.split()[:4] == ["prune", "unlearn", "forget,", "retain"]
    assert "Prunes [what] is left." in row
    assert "It does so twice" not in row
    assert "third_party.py " in row
    assert "clay" not in output


def test_everything_is_listed_without_an_argument(run_command: Command) -> None:
    output = run_command("list", "--plugin", "third_party.py").output
    for title in ("methods", "metrics", "providers", "layouts", "executors", "suites"):
        assert any(line.startswith(title) for line in output.splitlines())
    assert "clay" in output
    assert "echo" in output


def test_json_says_the_same(run_command: Command) -> None:
    listed = json.loads(run_command("list", "--plugin", "third_party.py", "--json").output)
    (prune,) = [row for row in listed["methods"] if row["name"] == "prune"]
    assert (prune["stage"], prune["needs"], prune["plugin"]) == ("unlearn", ["forget", "retain"], "third_party")
    assert prune["distribution"] == "third_party.py"
    (echo,) = [row for row in listed["metrics"] if row["name"] == "echo"]
    assert (echo["kind"], echo["better"]) == ("memorization", "lower")
    (clay,) = [row for row in listed["providers"] if row["name"] == "clay"]
    assert clay["trains"] is False
    assert listed["broken"] == []


def test_what_the_core_ships_has_no_origin_column(run_command: Command) -> None:
    output = run_command("list", "metrics").output
    assert "unmemorize" not in output


@pytest.mark.usefixtures("with_broken_plugin")
def test_broken_plugins_are_mentioned_at_the_end(run_command: Command) -> None:
    last = run_command("list").output.splitlines()[-1]
    assert last == "Broken and not loaded: plugin 'shaky' (shaky 0.3). `unmemorize plugins` shows why."
    assert json.loads(run_command("list", "--json").output)["broken"] == ["plugin 'shaky' (shaky 0.3)"]


def test_an_unknown_kind_is_refused_with_the_kinds(run_command: Command) -> None:
    result = run_command("list", "method")
    assert result.exit_code == 2
    assert "'methods'" in result.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("As Biderman et al. 2023. Two.", "As Biderman et al. 2023."),
        ("Only one", "Only one"),
        ("Broken\n    over lines. Two.", "Broken over lines."),
        ("First\n\nSecond.", "First"),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence
