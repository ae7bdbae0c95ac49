"""Every wrong plugin is caught by exactly the rule that it breaks, with a message that helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from unmemorize import Context, PluginError, StrictConfig
from unmemorize.contracts.answers import ask
from unmemorize.evaluation import evaluate
from unmemorize.execution.act import act
from unmemorize.execution.runtime import load_testbed
from unmemorize.execution.session import LoadedTestbed
from unmemorize.registry.manager import Registry
from unmemorize.testing import RULES, Report, check, tiny_model, tiny_testbed

METHODS = [
    ("Misstaged", {"declared"}, "has stage = 'unlearning'"),
    ("Undefaulted", {"declared"}, "has the setting 'strength' without a default"),
    ("Undescribed", {"documented"}, "the setting 'strength' of SilentConfig has no description"),
    ("Yes", {"honest_supports"}, "`supports` returned True on the whole testbed"),
    ("Refuses", {"honest_supports"}, "`supports` raised DataError: there is nothing to forget on a testbed whose"),
    ("Picky", {"honest_supports"}, "refuses every tiny testbed, so that nothing could be checked: it wants another"),
    ("TakesAnything", {"honest_supports", "empty_forget_set"}, "nothing against a testbed whose forget set is empty"),
    ("Crashes", {"acts"}, r"`apply` raised ZeroDivisionError: .*wrong.py:\d+"),
    ("Peeks", {"true_needs"}, "used 'retain', which it does not declare"),
    ("Nothing", {"changes_something"}, "without changing a single parameter"),
    ("Nan", {"changes_something"}, "not finite in transformer.wte.weight"),
    ("Mute", {"changes_something"}, "without setting `context.report.decoding`"),
    ("Idle", {"changes_something"}, "`context.report.decoding` changes no logit"),
    ("Destroys", {"keeps_utility"}, r"fell from 6\d\.\d% to \d\.\d%"),
    ("Counts", {"same_seed_same_result"}, "two runs with seed 0 ended in different transformer.wte.weight"),
    ("DrawsGlobally", {"keeps_global_state"}, "torch's global random generator was used"),
    ("DrawsFromPython", {"keeps_global_state"}, "Python's global random generator was used"),
    ("SwitchesGradientsOff", {"keeps_global_state"}, "torch's grad mode was changed"),
    ("SetsDtype", {"keeps_global_state"}, "torch's default dtype was changed"),
    ("AddsBuffer", {"keeps_state_dict"}, "the state dict has new mask"),
    ("ChangesDtype", {"keeps_state_dict"}, "torch.float64, and was .* torch.float32"),
    ("LeavesHook", {"removes_hooks"}, "a forward hook on transformer.h.0.mlp.c_proj after"),
    ("PatchesForward", {"removes_hooks"}, "a replaced `forward` on"),
    ("BreaksTie", {"keeps_state_dict"}, "other tensors share their memory than did: lm_head.weight"),
    ("ChangesAttribute", {"restores_modes"}, "`eps` of transformer.h.0.ln_1"),
    ("LeavesTraining", {"restores_modes"}, "training mode of the model"),
    ("Freezes", {"restores_modes"}, "requires_grad of transformer.wte.weight"),
    (
        "HooksWithoutFinally",
        {"cleans_up_after_errors"},
        "a forward hook on the model after an exception in",
    ),
    ("WritesIntoData", {"keeps_the_data"}, "hold other values now: forget"),
    ("NeverLooksUp", {"keeps_deadline"}, "went on to its end after 6.0 passes over the 16 rows"),
    ("NotesModules", {"recordable_notes"}, "`context.report.notes` cannot be written as JSON"),
    ("OneProcessor", {"recordable_notes"}, "`context.report.decoding` is .*Same.*, and no tuple of logits processors"),
    ("CostsTable", {"declared_cost"}, r"`cost` returned \{'forward_tokens': 12\}"),
    ("ExcusedByList", {"declared"}, r"has excused = \['keeps_utility'\]"),
    ("KnowsOneFactor", {"other_settings"}, "with factor = 'much' it raised KeyError: 'much'"),
    ("RunsForItsCost", {"declared_cost"}, "`cost` ran the model 1 times"),
    ("DividesByRest", {"one_sequence"}, "on a forget set of one sequence: .* not finite in"),
    ("WantsFloat32", {"works_in_bfloat16"}, "on a bfloat16 model"),
    ("WantsLayout", {"works_without_layout"}, "IndexError.* on a model whose MLPs no layout describes"),
    ("Overcautious", {"declared"}, "excused names 'keeps_utilty', which is no rule for a method"),
]
METRICS = [
    ("YieldsNumbers", {"measures"}, "`measure` yields float 12.5"),
    ("MeasuresNothing", {"measures"}, "metric 'regurgitated': `measure` returned None"),
    ("Halved", {"other_settings"}, "with parts = 0 it raised ZeroDivisionError"),
    ("Elsewhere", {"measures"}, "is of the set 'forgotten', which the testbed does not have"),
    ("OutOfRange", {"within_range"}, "100.0 on the set 'forget'"),
    ("WrongWay", {"known_order"}, "100 on the set 'forget' for a model that memorized it, 0 for an untrained one"),
    ("DropsSequences", {"keeps_sequences"}, "is a mean over sequences, and their values are not kept"),
    ("InventsIds", {"keeps_sequences", "rows_alone"}, "it names the ids -16, -15, -14 and 13 more"),
    ("CountsPadding", {"rows_alone"}, "and with more padding"),
    ("NeverTheSame", {"same_values_again", "rows_alone"}, "and measured again"),
    ("Touches", {"changes_nothing"}, "other weights in transformer.wte.weight"),
    ("Rolls", {"keeps_global_state"}, "torch's global random generator was used"),
    (
        "NeedsHoldouts",
        {"works_without_other_sets"},
        "raised IndexError: .* that has nothing but a forget set",
    ),
    ("IgnoresDecoding", {"sees_decoding"}, "with and without a decode-time method"),
]
PROVIDERS = [
    ("Absent", {"loads"}, "`load` raised DataError: there is no file rows.jsonl"),
    ("LoadsNothing", {"loads"}, "`load` returned NoneType"),
    ("Lists", {"stable_fingerprint"}, r"`fingerprint` returned \['a1b2'\]"),
    ("Brittle", {"other_settings"}, r"with rows = 3 it raised KeyError: 3 \(.*wrong.py"),
    ("Narrow", {"whole_sets"}, r"in the set 'forget' tokens is \(6, 14\) torch.int32"),
    ("Foreign", {"ids_in_vocabulary"}, "ids go from 2 to 40, and the model's vocabulary has 29"),
    ("PadsOtherwise", {"padding"}, "is padded with 2, and pad_id is 0"),
    ("Renumbers", {"own_ids"}, "the id 0 is one row in 'forget' and another in 'retain'"),
    ("Leaks", {"disjoint_sets"}, "8 rows of 'holdout:rest' stand in 'retain', too"),
    ("Overlong", {"fitting_window"}, r"no row of the forget set counts in the check 50\+50"),
    ("Training", {"ready_model"}, "the model comes with training mode of the model"),
    ("Restless", {"same_seed_same_testbed"}, "with seed 0, made again: other rows in retain"),
    ("Unstable", {"stable_fingerprint"}, "`fingerprint` returned .*, and then"),
    ("Unrecordable", {"recordable_facts"}, "`testbed.facts` cannot be written as JSON"),
    ("Seeds", {"keeps_global_state"}, "torch's global random generator was used"),
    ("Spoils", {"trains_again"}, "`train` returned the testbed's own model"),
]


def examined(wrong: ModuleType, name: str) -> Report:
    return check(getattr(wrong, name), architectures=["gpt2"])


@pytest.mark.parametrize("name", ["Nudge", "Regurgitated", "Small"])
def test_the_right_ones_pass_without_a_warning(wrong: ModuleType, name: str) -> None:
    report = examined(wrong, name)
    assert report.passed, str(report)
    assert not report.findings, str(report)


@pytest.mark.parametrize(
    ("name", "broken", "seen"), [pytest.param(*case, id=case[0]) for case in (*METHODS, *METRICS, *PROVIDERS)]
)
def test_a_wrong_plugin_breaks_exactly_its_rule(wrong: ModuleType, name: str, broken: set[str], seen: str) -> None:
    report = examined(wrong, name)
    assert set(report.rules("failed")) == broken, str(report)
    assert not report.passed
    assert any(re.search(seen, finding.seen) for verdict in report.failed for finding in verdict.findings), str(report)
    for finding in report.findings:
        assert finding.expected
        assert finding.fix


def test_every_rule_has_its_wrong_plugin() -> None:
    for kind, cases in (("method", METHODS), ("metric", METRICS), ("provider", PROVIDERS)):
        caught = set().union(*(broken for _, broken, _ in cases))
        no_wrong_one = {"known_layout", "another_seed_another_testbed"}
        no_wrong_one |= {"saves_and_reloads"}  # what would break it is refused when it acts
        shared = {"declared", "documented"}  # the same function for all three
        missing = {rule.name for rule in RULES[kind]} - caught - no_wrong_one - (shared if kind != "method" else set())
        assert not missing, kind


def acted(plugin: Any) -> None:
    act(LoadedTestbed(tiny_testbed(tiny_model("gpt2"))), plugin, Context())


def measured(plugin: Any) -> None:
    evaluate(tiny_testbed(tiny_model("gpt2")), [plugin])


def loaded(plugin: Any) -> None:
    load_testbed(plugin, "small", Context(), Registry.load("none"))


@pytest.mark.parametrize(
    ("name", "used", "said"),
    [
        ("Yes", acted, "method 'nudge': `supports` returned True"),
        ("CostsTable", acted, r"method 'nudge': `cost` returned dict \{"),
        ("NotesModules", acted, "method 'nudge': `context.report.notes` cannot be written as JSON"),
        ("OneProcessor", acted, "method 'nudge': `context.report.decoding` is"),
        (
            "MeasuresNothing",
            lambda metric: evaluate(tiny_testbed(tiny_model("gpt2")), [metric]),
            "`measure` returned None",
        ),
        ("YieldsNumbers", lambda metric: evaluate(tiny_testbed(tiny_model("gpt2")), [metric]), "yields float 12.5"),
        ("LoadsNothing", lambda one: load_testbed(one, "a", Context(), Registry.load("none")), "`load` returned None"),
        (
            "Lists",
            lambda provider: ask(provider, "fingerprint"),
            r"provider 'small': `fingerprint` returned list \['a1b2",
        ),
    ],
)
def test_a_run_names_the_plugin_that_answers_wrongly(
    wrong: ModuleType, name: str, used: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(PluginError, match=said) as raised:
        used(getattr(wrong, name)())
    assert raised.value.expected
    assert raised.value.fix


def test_a_provider_that_must_be_told_something_says_what(wrong: ModuleType) -> None:
    class Pointing(StrictConfig):
        """Where it is."""

        path: str
        """A folder."""

    report = check(type("Pointed", (wrong.Small,), {"__doc__": "Pointed.", "Config": Pointing}))
    assert report.passed
    assert {verdict.reason for verdict in report.verdicts if verdict.rule.name in ("loads", "padding")} == {
        "give --set path=..."
    }


@pytest.mark.parametrize(
    ("name", "rule", "seen"),
    [
        ("Greedy", "true_needs", "it declares 'retain' and does not look at it"),
        ("Fixed", "another_seed_another_testbed", "seeds 0 and 1 give the same data and the same weights"),
    ],
)
def test_what_is_worth_a_look_is_a_warning(wrong: ModuleType, name: str, rule: str, seen: str) -> None:
    report = examined(wrong, name)
    assert report.passed, str(report)
    (finding,) = report.findings
    assert report.rules("warning") == (rule,)
    assert finding.seen.startswith(seen)


def test_an_excuse_is_shown_with_its_reason(wrong: ModuleType) -> None:
    report = examined(wrong, "Ruinous")
    assert report.passed
    assert report.rules("excused") == ("keeps_utility",)
    assert "keeps_utility (gpt2): excused: it shows what a dead model scores" in str(report)


def test_an_excuse_that_nothing_needs_is_a_warning(wrong: ModuleType) -> None:
    kind = type("Careful", (wrong.Nudge,), {"__doc__": "Careful.", "excused": {"keeps_utility": "who knows"}})
    report = check(kind, architectures=["gpt2"])
    assert report.passed
    assert "excused names 'keeps_utility', which it keeps" in str(report)
