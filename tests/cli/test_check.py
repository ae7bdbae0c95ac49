"""`unmemorize check`, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from unmemorize.errors import ConfigError, PluginError, UnknownNameError

Command = Callable[..., Result]
WRONG = Path(__file__).parents[1] / "assets" / "wrong.py"


def lines_of(result: Result) -> dict[str, str]:
    """Return the status of every rule that has a line."""
    found = {}
    for line in result.output.splitlines():
        for status in ("passed", "warning", "excused", "not applicable", "failed"):
            if line.startswith(f"  {status} "):
                found[line.removeprefix(f"  {status}").split()[0]] = status
    return found


def test_one_line_for_each_rule(run_command: Command) -> None:
    result = run_command("check", "nudge", "--plugin", str(WRONG), "--architecture", "gpt2")
    assert result.exit_code == 0
    assert result.output.startswith("method nudge\n  passed         declared ")
    statuses = lines_of(result)
    assert statuses["same_seed_same_result"] == "passed"
    assert statuses["empty_forget_set"] == "not applicable"
    assert "`supports` says: it needs the forget set, and this testbed has none" in result.output
    assert "method nudge: 23 rules, 21 passed, 2 not applicable" in result.output


def test_a_broken_rule_is_explained_and_ends_with_status_1(run_command: Command, workplace: Path) -> None:
    source = WRONG.read_text().replace("return [Nudge, Ruinous]", "return [NotesModules]")
    (workplace / "mine.py").write_text(source)
    result = run_command("check", "nudge", "--plugin", "mine.py", "--architecture", "gpt2,llama")
    assert result.exit_code == 1
    assert lines_of(result)["recordable_notes"] == "failed"
    assert (
        "      seen:     gpt2: method 'nudge': `context.report.notes` cannot be written as JSON: it holds a "
        "GPT2Block\n"
        "      expected: notes of numbers, texts, lists and tables; flags that are texts; a tuple of processors\n"
        "      fix:      convert with float(...), int(...) or .tolist(); write e.g. `with context.timed('edit'):`\n"
    ) in result.output


def test_an_excuse_is_shown(run_command: Command) -> None:
    result = run_command("check", "ruinous", "--plugin", str(WRONG))
    assert result.exit_code == 0
    (line,) = [line for line in result.output.splitlines() if " keeps_utility " in line]
    assert line.split(maxsplit=2) == ["excused", "keeps_utility", "it shows what a dead model scores"]
    assert result.output.count("expected: at least") == 1, "what is corrected alike is explained once"
    assert "seen:     llama: accuracy on the hold-outs fell from" in result.output


def test_several_names_of_several_kinds_as_json(run_command: Command) -> None:
    result = run_command("check", "regurgitated", "small", "--plugin", str(WRONG), "--architecture", "gpt2", "--json")
    reports = json.loads(result.output)
    assert [(report["kind"], report["name"], report["passed"]) for report in reports] == [
        ("metric", "regurgitated", True),
        ("provider", "small", True),
    ]


def test_settings_are_overridden(run_command: Command) -> None:
    result = run_command("check", "small", "--plugin", str(WRONG), "--set", "rows=1", "--json")
    (report,) = json.loads(result.output)
    assert report["passed"]
    with pytest.raises(ConfigError, match='settings of small: rows = "many" is wrong'):
        run_command("check", "small", "--plugin", str(WRONG), "--set", "rows=many")
    with pytest.raises(ConfigError, match="has no value"):
        run_command("check", "small", "--plugin", str(WRONG), "--set", "rows")


def test_a_name_of_two_kinds_is_checked_as_both_or_as_said(run_command: Command) -> None:
    both = run_command("check", "prune", "--plugin", "third_party.py", "--architecture", "gpt2", "--json")
    assert [report["kind"] for report in json.loads(both.output)] == ["method", "provider"]
    one = run_command("check", "prune", "--plugin", "third_party.py", "--kind", "provider", "--json")
    assert [report["kind"] for report in json.loads(one.output)] == ["provider"]
    with pytest.raises(UnknownNameError, match="no metric is called 'prune'"):
        run_command("check", "prune", "--plugin", "third_party.py", "--kind", "metric")


def test_an_unknown_name_lists_near_ones(run_command: Command) -> None:
    with pytest.raises(UnknownNameError, match="no method, metric or provider is called 'durabel'") as caught:
        run_command("check", "durabel")
    assert caught.value.expected.startswith("one of durable")
    assert "--plugin FILE.py" in caught.value.fix


def test_no_name_lists_what_there_is(run_command: Command) -> None:
    with pytest.raises(ConfigError, match="was not told what to check") as caught:
        run_command("check")
    assert "durable" in caught.value.expected
    with pytest.raises(ConfigError) as caught:
        run_command("check", "--plugin", str(WRONG))
    assert "from other packages: nudge, ruinous, regurgitated, small" in caught.value.expected
    assert caught.value.fix == "unmemorize check nudge"


def test_an_unknown_architecture_is_refused(run_command: Command) -> None:
    with pytest.raises(PluginError, match="no tiny model has the architecture 'gpt3'"):
        run_command("check", "durable", "--architecture", "gpt3")


@pytest.mark.usefixtures("with_broken_plugin")
def test_a_broken_plugin_is_named(run_command: Command) -> None:
    with pytest.raises(UnknownNameError) as caught:
        run_command("check", "shaken")
    assert "plugin 'shaky' (shaky 0.3)" in caught.value.expected
