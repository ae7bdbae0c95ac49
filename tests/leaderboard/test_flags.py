from __future__ import annotations

import re

from unmemorize.leaderboard.flags import COLLAPSED_AT, FLAGS, MEMORIZED_AT, RETURNS_AT, meaning


def test_rules_name_the_numbers_that_decide():
    assert f"{100 * COLLAPSED_AT:g} %" in FLAGS["collapsed"]
    assert f"{MEMORIZED_AT:g} %" in FLAGS["base-not-memorized"]
    assert f"{RETURNS_AT:g} points" in FLAGS["returns-under-attack"]


def test_every_flag_is_a_word_with_a_rule():
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", flag) and len(rule) > 20 for flag, rule in FLAGS.items())


def test_flags_of_the_specification_are_there():
    specified = {
        "collapsed",
        "base-not-memorized",
        "returns-under-attack",
        "approximate-attribution",
        "sees-more",
    }
    assert specified <= set(FLAGS)


def test_a_flag_that_a_method_made_up_has_a_meaning_too():
    assert meaning("their-own") == "set by the method while it ran"
    assert meaning("worse") == FLAGS["worse"]
