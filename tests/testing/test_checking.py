"""The report, what `check` accepts, and how rules are distinguished."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from unmemorize import ConfigError, PluginError, StrictConfig
from unmemorize.registry.manager import Registry
from unmemorize.testing import ARCHITECTURES, RULES, check, check_method, check_metric, check_provider
from unmemorize.testing.checking import Examination
from unmemorize.testing.pytest_plugin import _ARCHITECTURES
from unmemorize.testing.rules.declarations import declared


def test_every_rule_is_a_sentence_of_its_own() -> None:
    for rules in RULES.values():
        assert len({rule.name for rule in rules}) == len(rules)
        for rule in rules:
            assert rule.statement.endswith("."), rule.name
            assert len(rule.statement) < 120, rule.name


def test_a_method_is_checked_on_every_architecture(wrong: ModuleType) -> None:
    report = check_method(wrong.NotesModules)
    assert {verdict.architecture for verdict in report.verdicts if verdict.rule.name == "acts"} == {*ARCHITECTURES}
    assert not report.passed
    assert report.rules("failed") == ("recordable_notes",)
    assert len(report.verdicts) == len({(verdict.rule.name, verdict.architecture) for verdict in report.verdicts})


def test_the_report_prints_itself_and_is_json_ready(wrong: ModuleType) -> None:
    report = check_metric(wrong.WrongWay, architectures=["gpt2"])
    assert str(report).splitlines()[0] == "metric regurgitated: 13 rules, 12 passed, 1 failed"
    assert (
        "  known_order (gpt2): failed\n"
        "    100 on the set 'forget' for a model that memorized it, 0 for an untrained one\n"
        "      expected: a higher value for the untrained model than for the memorizing one: "
        "the direction is 'higher'\n"
        '      fix: write `direction = "lower"`, or correct what is computed'
    ) in str(report)
    told = json.loads(json.dumps(report.to_dict()))
    (failed,) = [verdict for verdict in told["verdicts"] if verdict["status"] == "failed"]
    assert (failed["rule"], failed["architecture"], told["passed"]) == ("known_order", "gpt2", False)
    assert failed["findings"][0]["fix"]


def test_settings_are_used_and_checked(wrong: ModuleType) -> None:
    assert check_provider(wrong.Small, settings={"rows": 4}).passed
    with pytest.raises(ConfigError, match=r"settings of small: row is not a setting") as caught:
        check(wrong.Small, settings={"row": 4})
    assert "rows" in caught.value.expected


def test_a_model_without_a_layout_is_worth_a_warning(wrong: ModuleType) -> None:
    report = check(wrong.Small, registry=Registry())
    assert report.passed
    assert report.rules("warning") == ("known_layout",)


@pytest.mark.parametrize("plugin", [StrictConfig, 3, "durable"])
def test_what_is_no_plugin_is_refused(plugin: object) -> None:
    with pytest.raises(PluginError, match="cannot be checked") as caught:
        check(plugin)  # type: ignore[arg-type]
    assert "Method, Metric or ModelProvider" in caught.value.expected


def test_an_unknown_architecture_is_refused(wrong: ModuleType) -> None:
    with pytest.raises(PluginError, match="no tiny model has the architecture 'lama'") as caught:
        check(wrong.Nudge, architectures=["lama"])
    assert caught.value.fix == "write llama"
    with pytest.raises(PluginError, match="no architecture to check on"):
        check(wrong.Nudge, architectures=[])


def test_nothing_else_is_checked_of_what_is_not_declared(wrong: ModuleType) -> None:
    examination = Examination(wrong.Misstaged, architectures=["gpt2"])
    verdicts = [examination.verdict(task) for task in examination.tasks()]
    assert [verdict.status for verdict in verdicts] == ["failed", *["not applicable"] * (len(verdicts) - 1)]
    assert {verdict.reason for verdict in verdicts[1:]} == {"see declared"}


def test_a_rule_that_cannot_be_checked_is_broken(wrong: ModuleType) -> None:
    class Scores:
        def __call__(self, input_ids: object, scores: object) -> object:
            raise RuntimeError("boom")

    class Explodes(wrong.Mute):  # type: ignore[name-defined, misc]
        """Decodes with a processor that raises."""

        def apply(self, testbed: object, context: object) -> None:
            super().apply(testbed, context)
            context.report.decoding = (Scores(),)  # type: ignore[attr-defined]

    report = check(Explodes, architectures=["gpt2"])
    assert "changes_something" in report.rules("failed")
    assert any(finding.seen.startswith("checking this raised RuntimeError: boom") for finding in report.findings)


def test_the_pytest_plugin_knows_the_architectures() -> None:
    assert _ARCHITECTURES == ARCHITECTURES


def test_a_plugin_that_imports_internals_is_told(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "inner.py").write_text(
        "from unmemorize import Metric, hookimpl\nfrom unmemorize.toolkit import nearest\n"
        "import unmemorize.suite.grid\nfrom unmemorize.results.record import BASE\n\n\n"
        "class Inner(Metric):\n    name, kind, direction, range = 'inner', 'utility', 'higher', (0.0, 1.0)\n\n"
        "    def measure(self, evaluation):\n        yield\n\n\n"
        "@hookimpl\ndef register_metrics():\n    return [Inner]\n"
    )
    registry.add_file(tmp_path / "inner.py")
    case = SimpleNamespace(plugin=registry.metric("inner"), kind="metric", rule_names=())
    (found,) = declared(case)
    assert "imports unmemorize.results.record, unmemorize.suite.grid" in found.seen
    assert found.warning
