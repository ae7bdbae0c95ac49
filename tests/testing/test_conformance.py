"""The conformance suite as pytest tests, as an author sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unmemorize import PluginError
from unmemorize.testing import RULES, conformance
from unmemorize.testing.conformance import ConformanceWarning

TESTS = """
from wrong import Greedy, NotesModules, Nudge, Ruinous
from unmemorize.testing import conformance

test_nudge = conformance(Nudge, architectures=["gpt2"])
test_notes = conformance(NotesModules)
test_ruinous = conformance(Ruinous, architectures=["gpt2"])
test_greedy = conformance(Greedy, architectures=["gpt2"])


def test_fixtures(memorizing_testbed, random_testbed):
    assert memorizing_testbed.mlps
    assert random_testbed.mlps
"""


def parameters(test: Any) -> dict[str, Any]:
    """Return the tasks of a test by their ids."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


def test_every_rule_and_architecture_is_a_test(wrong: ModuleType) -> None:
    tasks = parameters(conformance(wrong.Nudge, architectures=["gpt2", "llama"]))
    assert {"declared", "acts-gpt2", "acts-llama", "keeps_deadline-gpt2"} <= tasks.keys()
    assert "keeps_deadline-llama" not in tasks
    assert {task.rule for task in tasks.values()} == {*RULES["method"]}


@pytest.mark.parametrize(
    ("plugin", "name", "outcome", "said"),
    [
        ("NotesModules", "recordable_notes-gpt2", pytest.fail.Exception, "cannot be written as JSON"),
        ("Nudge", "declared_cost-gpt2", pytest.skip.Exception, "it does not say what it takes"),
        ("Ruinous", "keeps_utility-gpt2", pytest.xfail.Exception, "it shows what a dead model scores"),
        ("Greedy", "true_needs-gpt2", ConformanceWarning, "it declares 'retain' and does not look at it"),
    ],
)
def test_how_a_verdict_is_told(
    wrong: ModuleType, plugin: str, name: str, outcome: type[BaseException], said: str
) -> None:
    test = conformance(getattr(wrong, plugin), architectures=["gpt2"])
    with pytest.raises(outcome, match=said):
        test(parameters(test)[name])


def test_a_rule_that_is_kept_is_told_by_silence(wrong: ModuleType) -> None:
    test = conformance(wrong.Nudge, architectures=["gpt2"])
    test(parameters(test)["declared"])


def test_only_plugin_classes_are_accepted() -> None:
    with pytest.raises(PluginError, match="cannot be checked"):
        conformance(int)


def test_an_author_runs_it_with_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS)
    chosen = "recordable_notes or (utility and ruinous) or (needs and greedy) or cost or (fixtures and gpt2-gpt2)"
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "assets"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "unmemorize.testing.pytest_plugin", "-v", "-rsx", "-k", chosen, "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert "1 failed, 5 passed, 4 skipped" in output, output
    assert "1 xfailed, 1 warning" in output
    assert (
        "What it notes, flags and times can be written into a record.\n\n"
        "method 'nudge': `context.report.notes` cannot be written as JSON: it holds a GPT2Block\n"
        "  expected: notes of numbers, texts, lists and tables; flags that are texts; a tuple of processors\n"
        "  fix: convert with float(...), int(...) or .tolist(); write e.g. `with context.timed('edit'):`\n"
    ) in output
    assert "Traceback" not in output
    assert "test_mine.py::test_fixtures[gpt2-gpt2] PASSED" in output


def test_the_plugin_costs_other_test_runs_nothing() -> None:
    code = (
        "import sys, unmemorize.testing.pytest_plugin;"
        "assert not {'torch', 'transformers', 'numpy', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
