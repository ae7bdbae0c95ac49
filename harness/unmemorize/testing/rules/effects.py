"""Rules about what a method does: that it acts, on what it declares, with what result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from unmemorize.contracts.testbed import Sequences, Testbed
from unmemorize.errors import DivergedError, UndeclaredNeedError, UnmemorizeError, listed
from unmemorize.evaluation import Evaluation
from unmemorize.execution.reference import Reference
from unmemorize.files.atomic import temporary_folder
from unmemorize.testing.alone import alone
from unmemorize.testing.memorizing import duplicate
from unmemorize.testing.report import Finding, NotApplicable
from unmemorize.testing.rules.quoting import said, where
from unmemorize.testing.trial import MethodCase, Trial, accuracy
from unmemorize.testing.watching import SHOWN

KEPT = 1 / 2
"""Share of the accuracy that a method must leave with its defaults."""
KEPT_WELL = 2 / 3
"""Share below which it is worth a warning."""


def honest_supports(case: MethodCase) -> Iterator[Finding]:
    """`supports` returns None or a reason, never raises, and refuses testbeds that lack what the method needs."""
    full = case.testbed()
    yield from _answer(case, full, "the whole testbed")
    if isinstance(case.refusal, Exception):
        return
    if case.architecture == case.architectures[0] and case.refused_everywhere():
        yield Finding(
            f"`supports` refuses every tiny testbed, so that nothing could be checked: {case.refusal}",
            "a testbed to act on: the tiny ones have every set, a tokenizer, a layout, and can be trained again",
            "refuse only what is really missing, or give settings with which it can act",
        )
    empty = full.forget.select([])
    for need in sorted(set(SHOWN) & set(case.plugin.needs)):
        without = duplicate(full)
        setattr(without, need, empty)
        yield from _answer(case, without, f"a testbed whose {need} set is empty", must_refuse=True)
        if need != "forget":
            setattr(without, need, None)
            yield from _answer(case, without, f"a testbed without a {need} set", must_refuse=True)
    if case.plugin.stage == "train":
        fixed = dataclasses.replace(duplicate(full), trainable=False)
        yield from _answer(case, fixed, "a testbed that cannot be trained again", must_refuse=True)


def _answer(case: MethodCase, testbed: Testbed, which: str, *, must_refuse: bool = False) -> Iterator[Finding]:
    answer = case.answer(testbed)
    if isinstance(answer, Exception):
        yield Finding(
            f"`supports` raised {said(answer)} on {which} ({where(answer)})",
            "a reason as text, or None",
            "return a sentence instead of raising",
        )
    elif answer is not None and (not isinstance(answer, str) or not answer.strip()):
        yield Finding(
            f"`supports` returned {answer!r} on {which}",
            "a reason as text where it cannot act, and None where it can",
            'return None, or e.g. "it needs a retain set, and this testbed has none"',
        )
    elif answer is None and must_refuse:
        yield Finding(
            f"`supports` has nothing against {which}",
            "a reason: the board shows such cells as skipped, with it",
            "begin with `reason = super().supports(testbed)` and return that if it is not None",
        )


def acts(case: MethodCase) -> Iterator[Finding]:
    """It acts, without an error, on every tiny testbed that `supports` accepts."""
    error = case.attempt.error
    if isinstance(error, UndeclaredNeedError):
        raise NotApplicable("it looks at what it does not declare; see true_needs")
    if error is not None:
        yield _crash(error, "a memorizing tiny model", case)
    elif not case.attempt.reached:
        raise NotApplicable(f"a run does not let it act, see declared_cost: {case.attempt.refusal}")
    elif case.attempt.flaw == "acts":
        yield from refused(case.attempt)


def refused(trial: Trial) -> Iterator[Finding]:
    """Yield the finding that a run would not accept what the method did, if it would not."""
    refusal = trial.refusal
    if isinstance(refusal, UnmemorizeError):
        yield Finding(refusal.what, refusal.expected, refusal.fix)
    elif refusal is not None:
        yield Finding(
            f"a run refuses it: {said(refusal)} ({where(refusal)})", "a method that a run accepts", "correct it"
        )


def works_without_layout(case: MethodCase) -> Iterator[Finding]:
    """On a model whose MLPs no layout describes it acts, or `supports` says why not."""
    case.sound_trial()
    bare = dataclasses.replace(case.testbed(), mlps=())
    _may_refuse(case, bare)
    yield from _works_on(
        case, bare, "a model whose MLPs no layout describes",
        "let `supports` answer for `testbed.mlps == ()`: `return super().supports(testbed) or missing_layout(testbed)`",
    )  # fmt: skip


def _crash(error: Exception, what: str, case: MethodCase) -> Finding:
    return Finding(
        f"`apply` raised {said(error)} on {what} ({where(error)})",
        "an edited model, or a reason from `supports`",
        f"correct `apply`, or let `supports` of {case.plugin.__name__} say why it cannot act",
    )


def true_needs(case: MethodCase) -> Iterator[Finding]:
    """It is shown what it declares and nothing else, and looks at all of it."""
    attempt, name = case.attempt, case.plugin.__name__
    needs = set(case.plugin.needs)
    if isinstance(attempt.error, UndeclaredNeedError):
        yield Finding(attempt.error.what, attempt.error.expected, attempt.error.fix)
        return
    retrained = attempt.watch.retrained is not None
    if retrained and "training_data" not in needs:
        yield Finding(
            "it trains the model again (`context.train_again`), and does not declare `training_data`",
            '"training_data" in `needs`: boards compare methods by what they were shown',
            f'add "training_data" to `needs` of {name}',
        )
    if attempt.error is not None:
        return
    looked_at = attempt.watch.touched | ({"training_data"} if retrained else set())
    for need in sorted(needs - looked_at):
        yield Finding(
            f"it declares {need!r} and does not look at it with these settings",
            "only needs that are used: a method that needs less is worth more on the board",
            f"remove {need!r} from `needs` of {name}, unless other settings use it",
            warning=True,
        )


def changes_something(case: MethodCase) -> Iterator[Finding]:
    """It changes the weights or, at the stage `decode`, the decoding; what it leaves is finite."""
    trial, stage = case.trial(), case.plugin.stage
    if trial.flaw == "recordable_notes":
        return
    if stage == "decode" and not isinstance(trial.refusal, DivergedError):
        yield from _changed_decoding(case, trial)
    elif trial.flaw == "changes_something":
        yield from refused(trial)
    if stage != "decode" and trial.testbed.decoding:
        yield Finding(
            f"it sets `context.report.decoding`, and its stage is {stage!r}",
            "the stage 'decode' for methods that act on the logits of every step",
            f'write `stage = "decode"` in {case.plugin.__name__}',
        )


def _changed_decoding(case: MethodCase, trial: Trial) -> Iterator[Finding]:
    if not trial.testbed.decoding:
        yield Finding(
            "`apply` ended without setting `context.report.decoding`",
            "a tuple of logits processors: the stage is 'decode'",
            "write `context.report.decoding = (MyProcessor(...),)` in `apply`",
        )
        return
    plain, processed = (_says(testbed) for testbed in (case.testbed(), trial.testbed))
    if all(torch.equal(left, right) for left, right in zip(plain, processed, strict=True)):
        yield Finding(
            "`context.report.decoding` changes no logit, neither on the forget set nor on the hold-outs",
            "another distribution of the next token somewhere",
            "return the changed scores from the processor's `__call__`",
        )


def _says(testbed: Testbed) -> list[torch.Tensor]:
    evaluation = Evaluation(testbed)
    names = ["forget", "forget_unseen", "retain", *evaluation.holdouts()]
    return [part for name in names for part in evaluation.teacher_forced(name)[:2]]


def same_seed_same_result(case: MethodCase) -> Iterator[Finding]:
    """The same seed gives the same model, bit for bit."""
    first = case.sound_trial()
    if case.trains_again:  # a few steps of training are enough to compare
        first = case.run(case.testbed())
    second = case.run(case.testbed())
    if second.error is not None:
        yield _crash(second.error, "the same testbed a second time", case)
        return
    other = Reference(first.testbed.model).changed_values(second.testbed.model)
    if other or not _same_decoding(first, second):
        yield Finding(
            f"two runs with seed 0 ended in different {listed(other) if other else 'decoding'}",
            "the same result for the same seed",
            "draw from `context.generator(...)` only; keep no state on the class; iterate over sorted sets",
        )


def _same_decoding(first: Trial, second: Trial) -> bool:
    if not first.testbed.decoding and not second.testbed.decoding:
        return True
    pairs = zip(_says(first.testbed), _says(second.testbed), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def keeps_utility(case: MethodCase) -> Iterator[Finding]:
    """With its defaults it leaves at least half of the tiny model's accuracy on hold-outs (a warning below 2/3)."""
    trial = case.sound_trial()
    if case.trains_again and not case.leading:
        raise NotApplicable(f"it is let train to the end on {case.architectures[0]} only")
    before, after = case.accuracy_before, accuracy(trial.testbed)
    if after >= KEPT_WELL * before:
        return
    harmful = after < KEPT * before
    yield Finding(
        f"accuracy on the hold-outs fell from {before:.1%} to {after:.1%}",
        f"at least {KEPT * before:.1%}" + ("" if harmful else f", better {KEPT_WELL * before:.1%}"),
        "choose gentler defaults; where harm is the method's nature, say so: "
        '`excused = {"keeps_utility": "why"}` in its class',
        warning=not harmful,
    )


def empty_forget_set(case: MethodCase) -> Iterator[Finding]:
    """An empty forget set is refused by `supports` with a reason, or does no harm."""
    testbed = case.testbed()
    yield from _small(case, testbed, testbed.forget.select([]), "an empty forget set")


def one_sequence(case: MethodCase) -> Iterator[Finding]:
    """A forget set of one sequence is refused by `supports` with a reason, or handled."""
    testbed = case.testbed()
    yield from _small(case, testbed, testbed.forget.select([0]), "a forget set of one sequence")


def _small(case: MethodCase, testbed: Testbed, forget: Sequences, what: str) -> Iterator[Finding]:
    if "forget" not in case.plugin.needs:
        raise NotApplicable("it is not shown the forget set")
    case.sound_trial()
    testbed.forget = forget
    testbed.clean = None if testbed.clean is None else testbed.clean.select(slice(0, len(forget)))
    _may_refuse(case, testbed)
    yield from _works_on(case, testbed, what, "let `supports` return a reason for it")


def works_in_bfloat16(case: MethodCase) -> Iterator[Finding]:
    """It works on a bfloat16 model, or `supports` says why not."""
    if case.plugin.stage == "train":
        raise NotApplicable("the provider decides in which dtype it trains")
    case.sound_trial()
    testbed = case.testbed(torch.bfloat16)
    _may_refuse(case, testbed)
    yield from _works_on(case, testbed, "a bfloat16 model", "accumulate in float32 (`.float()`), write back in .dtype")


def _may_refuse(case: MethodCase, testbed: Testbed) -> None:
    """Leave it at that if `supports` has something against a testbed."""
    answer = case.answer(testbed)
    if isinstance(answer, Exception):
        raise NotApplicable("`supports` raises an error; see honest_supports")
    if answer is not None:
        raise NotApplicable(f"`supports` says: {answer}")


def _works_on(case: MethodCase, testbed: Testbed, what: str, fix: str) -> Iterator[Finding]:
    trial = case.run(testbed)
    if trial.error is not None:
        yield Finding(
            f"`apply` raised {said(trial.error)} on {what} ({where(trial.error)})",
            "an edited model, or a reason from `supports`",
            fix,
        )
        return
    for finding in refused(trial):
        yield finding._replace(seen=f"on {what}: {finding.seen}", fix=fix)


def saves_and_reloads(case: MethodCase) -> Iterator[Finding]:
    """The edited model, saved and loaded by plain transformers, gives the same logits."""
    if case.plugin.stage == "decode":
        raise NotApplicable("it leaves the model as it was")
    model = case.sound_trial().testbed.model
    tokens = case.testbed().forget.tokens[:4]
    with temporary_folder() as folder, alone(), torch.no_grad():
        expected = model(input_ids=tokens).logits
        try:
            model.save_pretrained(folder)
            reloaded = type(model).from_pretrained(folder).eval()
            logits = reloaded(input_ids=tokens).logits
        except Exception as error:  # transformers raises many kinds
            yield Finding(
                f"saving and loading raised {said(error)}",
                "`save_pretrained` and `from_pretrained` work as before",
                "leave the model an ordinary instance of its class: no wrappers, no new parameters",
            )
            return
    furthest = float((logits - expected).abs().max())
    if furthest > 1e-5:
        yield Finding(
            f"the reloaded model's logits differ by up to {furthest:.3g}",
            "the same logits: all that the method did must be in the weights",
            "bake hooks, masks and scales into the weights before `apply` returns",
        )
