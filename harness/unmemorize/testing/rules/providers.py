"""Rules about providers: testbeds that are whole, disjoint, ready for use, and decided by config and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator

from unmemorize.contracts.context import Context
from unmemorize.contracts.testbed import Testbed
from unmemorize.errors import listed
from unmemorize.evaluation import Evaluation
from unmemorize.execution.architecture import find_mlps
from unmemorize.execution.reference import Reference, hooks_on
from unmemorize.execution.sound_data import foreign_ids, misshapen, overlaps, rows_of, vocabulary_of
from unmemorize.testing.alone import alone
from unmemorize.testing.loading import Loading, ProviderCase
from unmemorize.testing.report import Finding, NotApplicable
from unmemorize.testing.rules.quoting import said, where
from unmemorize.testing.trial import changed_sets, digests
from unmemorize.training.regularizer import Regularizer


def loads(case: ProviderCase) -> Iterator[Finding]:
    """It loads a testbed from its settings alone."""
    loading, name = case.attempt, case.plugin.__name__
    if loading.error is not None:
        yield Finding(
            f"`load` raised {said(loading.error)} ({where(loading.error)})",
            "a testbed",
            getattr(loading.error, "fix", f"correct `load` of {name}, or give it settings: --set key=value"),
        )
    elif not isinstance(loading.testbed, Testbed):
        yield Finding(
            f"`load` returned {type(loading.testbed).__name__}",
            "an unmemorize.Testbed",
            "write `return Testbed(name=..., model=..., forget=...)`",
        )


def whole_sets(case: ProviderCase) -> Iterator[Finding]:
    """Every set holds int64 tensors on the CPU whose shapes, lengths and suffix starts fit together."""
    for name, sequences in case.loaded().sets().items():
        problem = misshapen(sequences)
        if problem:
            yield Finding(
                f"in the set {name!r} {problem}",
                "tokens (N, T), and lengths, suffix_starts, ids, copies (N,), int64, on the CPU",
                "build it with `Sequences.from_rows(rows, prompt=..., pad_id=...)`",
            )


def ids_in_vocabulary(case: ProviderCase) -> Iterator[Finding]:
    """Every token id, padding included, is one of the model's vocabulary."""
    testbed = case.loaded()
    vocabulary = vocabulary_of(testbed)
    for name, sequences in testbed.sets().items():
        foreign = foreign_ids(sequences, vocabulary)
        if foreign:
            yield Finding(
                f"in the set {name!r} {foreign}",
                f"ids from 0 to {vocabulary - 1}",
                "tokenize with the model's own tokenizer, and pad with an id that it has",
            )


def padding(case: ProviderCase) -> Iterator[Finding]:
    """Beyond its length every row holds the testbed's `pad_id`, and nothing else."""
    testbed = case.loaded()
    for name, sequences in testbed.sets().items():
        beyond = sequences.tokens[~sequences.real()]
        other = beyond[beyond != testbed.pad_id]
        if len(other):
            yield Finding(
                f"the set {name!r} is padded with {int(other[0])}, and pad_id is {testbed.pad_id}",
                "rows padded on the right with `testbed.pad_id`",
                "give the same `pad_id` to `Sequences.from_rows`, `Sequences.concatenate` and `Testbed`",
            )


def own_ids(case: ProviderCase) -> Iterator[Finding]:
    """No id stands twice in a set, and one id means one row in all sets."""
    meant: dict[int, tuple[str, bytes]] = {}
    for name, sequences in case.loaded().sets().items():
        ids = sequences.ids.tolist()
        if len(set(ids)) < len(ids):
            yield Finding(
                f"the set {name!r} has {len(ids)} rows and {len(set(ids))} ids",
                "an id of its own for each row: values of single sequences are kept by id",
                "give each set ids of its own, e.g. `Sequences.from_rows(..., first_id=1000)`",
            )
            return
        if name == "clean":  # the counterparts of the forget set, under the same ids
            continue
        for number, row in zip(ids, rows_of(sequences), strict=True):
            other = meant.setdefault(number, (name, row))
            if other[1] != row:
                yield Finding(
                    f"the id {number} is one row in {other[0]!r} and another in {name!r}",
                    "an id that stays with an example through every set",
                    "give each set ids of its own, e.g. `Sequences.from_rows(..., first_id=1000)`",
                )
                return


def disjoint_sets(case: ProviderCase) -> Iterator[Finding]:
    """No memorized row stands in a set that methods may keep, and no hold-out stands in a set that methods see."""
    for overlap in overlaps(case.loaded()):
        yield Finding(
            str(overlap),
            "sets that share no row: otherwise a method sees what it is measured on, or keeps what it must forget",
            "take duplicates out before the rows are split",
        )


def fitting_window(case: ProviderCase) -> Iterator[Finding]:
    """The extraction check has rows to count, and the model has room for every row."""
    testbed = case.loaded()
    evaluation = Evaluation(testbed)
    with alone():
        counted = len(evaluation.probe("forget", testbed.window).rows)
    if not counted:
        yield Finding(
            f"no row of the forget set counts in the check {testbed.window.prompt}+{testbed.window.suffix}: its "
            f"{len(testbed.forget)} rows have at most {int(testbed.forget.lengths.max()) if len(testbed.forget) else 0}"
            " tokens",
            "rows longer than the window's prompt",
            "write a `window=Window(prompt, suffix)` that fits them",
        )
    limit = getattr(testbed.model.config, "max_position_embeddings", None)
    longest = {name: int(each.lengths.max()) for name, each in testbed.sets().items() if len(each)}
    for name, length in longest.items():
        if isinstance(limit, int) and length > limit:
            yield Finding(
                f"the set {name!r} has rows of {length} tokens, and the model's context is {limit}",
                f"rows of at most {limit} tokens",
                "cut them, or take a model with a longer context",
            )


def ready_model(case: ProviderCase) -> Iterator[Finding]:
    """The model is in eval mode, finite, without gradients and without hooks."""
    model = case.loaded().model
    modes = [f"training mode of {name or 'the model'}" for name, module in model.named_modules() if module.training]
    modes += [f"a gradient left in {name}" for name, value in model.named_parameters() if value.grad is not None]
    hooks = hooks_on(model)
    broken = [name for name, value in model.named_parameters() if not value.isfinite().all()]
    for seen, fix in ((modes, "call `model.eval()`, `model.zero_grad()`"), (hooks, "remove its hooks")):
        if seen:
            yield Finding(f"the model comes with {listed(seen)}", "a model in eval mode, as loaded", fix)
    if broken:
        yield Finding(f"values that are not finite in {listed(broken)}", "finite weights", "correct its training")


def known_layout(case: ProviderCase) -> Iterator[Finding]:
    """A layout describes where the model's MLPs are, so that neuron- and weight-level methods apply."""
    testbed, registry = case.loaded(), case.registry
    if registry is None:
        raise NotApplicable("no registry was given to look the layout up in")
    found = find_mlps(testbed.model, registry)
    if found.note:
        yield Finding(
            found.note, "a registered layout that fits: without one, MLPs are found by structure or not at all",
            "return a `Layout` from the hook `register_layouts` (docs/hooks/register_layouts.md)", warning=True,
        )  # fmt: skip


def same_seed_same_testbed(case: ProviderCase) -> Iterator[Finding]:
    """The same config and seed give the same data and weights, from the cache as well as made afresh."""
    for what, loading in zip(("made again", "found in the cache"), case.from_cache, strict=True):
        case.loaded()
        other = _other_than(case.loaded(), loading)
        if other:
            yield Finding(
                f"with seed 0, {what}: {other}",
                "the same testbed, whichever way it comes",
                "draw from `context.generator(...)` only; key the cache on config, seed and data",
            )
            return


def _other_than(testbed: Testbed, loading: Loading) -> str | None:
    if loading.error is not None or not isinstance(loading.testbed, Testbed):
        return f"`load` raised {said(loading.error)}" if loading.error else "`load` returned no testbed"
    sets = changed_sets(digests(testbed), loading.testbed)
    if sets:
        return f"other rows in {listed(sets)}"
    if testbed.window != loading.testbed.window:
        return f"the window {tuple(loading.testbed.window)} instead of {tuple(testbed.window)}"
    weights = Reference(testbed.model).changed_values(loading.testbed.model)
    return f"other weights in {listed(weights)}" if weights else None


def another_seed_another_testbed(case: ProviderCase) -> Iterator[Finding]:
    """Another seed gives other data or other weights, unless they are fixed by what they are."""
    case.loaded()
    other = case.load(1)
    if other.error is not None:
        yield Finding(f"with seed 1 `load` raised {said(other.error)}", "a testbed for every seed", "correct `load`")
    elif _other_than(case.loaded(), other) is None:
        yield Finding(
            "seeds 0 and 1 give the same data and the same weights",
            "something that depends on the seed; otherwise several seeds only repeat the methods",
            "draw from `context.generator(...)`; or, for a fixed model and fixed data, say so: "
            '`excused = {"another_seed_another_testbed": "a pre-trained model and a published set"}`',
            warning=True,
        )


def stable_fingerprint(case: ProviderCase) -> Iterator[Finding]:
    """`fingerprint` gives the same texts each time."""
    first, second = (case.provider().fingerprint() for _ in range(2))
    texts = isinstance(first, dict) and all(isinstance(part, str) for pair in first.items() for part in pair)
    if not texts or first != second:
        yield Finding(
            f"`fingerprint` returned {first!r}" + (f", and then {second!r}" if texts else ""),
            "a dict of texts, the same each time: it enters the key of every cell",
            "hash the content of files, not their times; name revisions",
        )


def recordable_facts(case: ProviderCase) -> Iterator[Finding]:
    """The facts about the testbed can be written into a record."""
    try:
        json.dumps(case.loaded().facts)
    except (TypeError, ValueError) as error:
        yield Finding(
            f"`testbed.facts` cannot be written as JSON: {error}",
            "numbers, texts, lists and tables of these",
            "convert with float(...), int(...) or .tolist()",
        )


def keeps_global_state(case: ProviderCase) -> Iterator[Finding]:
    """It touches no global state: random generators, dtype, grad mode, threads, environment, patched functions."""
    case.loaded()
    for change in case.attempt.global_changes:
        yield Finding(
            change,
            "everything global as it was",
            "draw from `context.generator(...)`; build models inside `torch.random.fork_rng()`",
        )


class _Plain(Regularizer):
    """Trains as usual."""

    name = "plain"


def trains_again(case: ProviderCase) -> Iterator[Finding]:
    """If it trains, `train` returns another model of the same shape and leaves the testbed's own alone."""
    if not case.plugin.trains():
        raise NotApplicable("it does not train from scratch")
    testbed = case.loaded()
    before = Reference(testbed.model)
    with alone():
        try:
            model = case.provider().train(testbed, _Plain(), Context(seed=0))
        except Exception as error:  # whatever a third party's code raises is a finding
            yield Finding(f"`train` raised {said(error)} ({where(error)})", "a trained model", "correct `train`")
            return
    touched = before.changed_values(testbed.model) + before.differences(testbed.model).hooks
    if model is testbed.model or touched:
        yield Finding(
            "`train` returned the testbed's own model"
            if model is testbed.model
            else f"`train` changed the testbed's model: {listed(touched)}",
            "another model: cells after this one need the testbed as it was",
            "train a copy: `model, mlps = copy.deepcopy((testbed.model, testbed.mlps))`",
        )
        return
    other = before.other_shape(model)
    if other:
        yield Finding(
            f"`train` returned another kind of model: {other}",
            "the same architecture and sizes",
            "train a copy of the testbed's model from its initial weights",
        )
