"""All rules, in the order in which they are checked and listed."""

from __future__ import annotations

from unmemorize.testing.report import Kind, Rule
from unmemorize.testing.rules import effects, metrics, providers, side_effects
from unmemorize.testing.rules.declarations import declared, documented
from unmemorize.testing.rules.settings import other_settings

DECLARED = Rule.of(declared, once=True)
"""The rule without which no other makes sense."""

RULES: dict[Kind, tuple[Rule, ...]] = {
    "method": (
        DECLARED,
        Rule.of(documented, once=True),
        Rule.of(effects.honest_supports),
        Rule.of(effects.acts),
        Rule.of(effects.true_needs),
        Rule.of(effects.changes_something),
        Rule.of(effects.keeps_utility),
        Rule.of(effects.same_seed_same_result, once=True),
        Rule.of(side_effects.keeps_global_state),
        Rule.of(side_effects.keeps_state_dict),
        Rule.of(effects.saves_and_reloads),
        Rule.of(side_effects.removes_hooks),
        Rule.of(side_effects.restores_modes),
        Rule.of(side_effects.cleans_up_after_errors, once=True),
        Rule.of(side_effects.keeps_the_data),
        Rule.of(side_effects.keeps_deadline, once=True),
        Rule.of(side_effects.recordable_notes, once=True),
        Rule.of(side_effects.declared_cost, once=True),
        Rule.of(effects.empty_forget_set, once=True),
        Rule.of(effects.one_sequence, once=True),
        Rule.of(effects.works_without_layout, once=True),
        Rule.of(effects.works_in_bfloat16, once=True),
        Rule.of(other_settings, once=True),
    ),
    "metric": (
        DECLARED,
        Rule.of(documented, once=True),
        Rule.of(metrics.measures),
        Rule.of(metrics.within_range),
        Rule.of(metrics.known_order),
        Rule.of(metrics.keeps_sequences),
        Rule.of(metrics.rows_alone, once=True),
        Rule.of(metrics.same_values_again, once=True),
        Rule.of(metrics.changes_nothing),
        Rule.of(metrics.keeps_global_state),
        Rule.of(metrics.works_without_other_sets, once=True),
        Rule.of(metrics.sees_decoding, once=True),
        Rule.of(other_settings, once=True),
    ),
    "provider": (
        DECLARED,
        Rule.of(documented, once=True),
        Rule.of(providers.loads, once=True),
        Rule.of(providers.whole_sets, once=True),
        Rule.of(providers.ids_in_vocabulary, once=True),
        Rule.of(providers.padding, once=True),
        Rule.of(providers.own_ids, once=True),
        Rule.of(providers.disjoint_sets, once=True),
        Rule.of(providers.fitting_window, once=True),
        Rule.of(providers.ready_model, once=True),
        Rule.of(providers.known_layout, once=True),
        Rule.of(providers.same_seed_same_testbed, once=True),
        Rule.of(providers.another_seed_another_testbed, once=True),
        Rule.of(providers.stable_fingerprint, once=True),
        Rule.of(providers.recordable_facts, once=True),
        Rule.of(providers.keeps_global_state, once=True),
        Rule.of(providers.trains_again, once=True),
        Rule.of(other_settings, once=True),
    ),
}
"""Every rule, by the kind of plugin that it is about."""
