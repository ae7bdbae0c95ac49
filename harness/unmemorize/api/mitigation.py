"""Mitigate a model of one's own, and measure it before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.api.data_notes import data_notes
from unmemorize.api.inapplicable import cannot_act
from unmemorize.api.runs import load_registry
from unmemorize.errors import DataError
from unmemorize.files.places import cache_folder
from unmemorize.models.caller import plain_torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unmemorize.contracts.config import StrictConfig
    from unmemorize.contracts.context import Progress
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.metric import Kind
    from unmemorize.contracts.testbed import Testbed
    from unmemorize.data.sets import OpenedSequences
    from unmemorize.data.tokenization import Bounds
    from unmemorize.editing.edit_file import Edits
    from unmemorize.evaluation.metric import Metric
    from unmemorize.execution.act import Outcome
    from unmemorize.execution.session import LoadedTestbed
    from unmemorize.models.source import AnyModel
    from unmemorize.registry.manager import Registry
    from unmemorize.results.record import Value


@dataclass(frozen=True, slots=True)
class Mitigation:
    """A mitigated model and what the method did to it."""

    model: PreTrainedModel
    """The model itself; of one with PEFT adapters the copy that they were merged into."""
    method: str
    config: dict[str, Any]
    values: list[Value]
    """Every metric before and after."""
    seconds: dict[str, float]
    total_seconds: float
    peak_memory: int
    edited: int
    parameters: int
    flags: list[str]
    """What a board would say about these values (`docs/flags.md`), and what the method said itself."""
    notes: dict[str, Any]
    curve: list[dict[str, float]]
    """The headline metrics after each epoch, of methods that train."""
    data: dict[str, Any]
    """What was read: rows of each set, rows left out by reason, what they came in, special tokens, notes."""
    seed: int
    origin: dict[str, Any]
    """Name, plugin, distribution and version of the method."""
    edits: Edits
    """Which weights were changed, parameter by parameter."""
    decoding: tuple[Any, ...]
    """Logits processors of a decode-time method, to be passed to `generate`; empty for all others."""
    environment: dict[str, Any]
    """Versions, processor and device."""

    def save(self, folder: str | Path, *, tokenizer: Any = None, source: Mapping[str, Any] | None = None) -> list[Path]:
        """Write model, tokenizer, model card, report and edits into a new folder that plain transformers loads.

        Args:
            folder: a new folder.
            tokenizer: saved beside the model, if there is one.
            source: JSON-ready facts for card and report; `model` names the base model.

        Raises:
            DataError: the folder is not empty or cannot be written, or the method acts while decoding.
        """
        from unmemorize.api.data_notes import about_sets
        from unmemorize.api.saving import save

        facts = {"model": self.model.config.name_or_path} if source is None else source
        return save(self, Path(folder), tokenizer, {**about_sets(self.data), **facts})

    def value(self, metric: str, on: str) -> Value:
        """Return the value of a metric (its label or name) on a set.

        Raises:
            DataError: nothing of that name was measured.
        """
        for value in self.values:
            if on == value.set and metric in (value.metric, value.metric.partition("@")[0]) and value.part == "all":
                return value
        raise DataError(
            f"{metric!r} was not measured on {on!r}",
            expected="one of " + ", ".join(sorted({f"{v.metric} on {v.set}" for v in self.values})),
            fix="mitigation.value('extraction', 'forget')",
        )

    def __str__(self) -> str:
        from unmemorize.leaderboard.flags import meaning

        share = self.edited / self.parameters
        lines = [
            f"{self.method}: {self.edited:,} of {self.parameters:,} parameters changed ({share:.3%}), "
            f"{self.total_seconds:.2f} s, peak memory {self.peak_memory / 2**20:,.0f} MiB"
        ]
        for value in self.values:
            if value.part == "all" and value.before is not None and value.after is not None:
                lines.append(f"  {value.metric:<22} {value.set:<20} {value.before:10.3f} -> {value.after:10.3f}")
        lines += [f"  flag {flag}: {meaning(flag)}" for flag in self.flags]
        return "\n".join([*lines, *(f"  note: {note}" for note in data_notes(self.data))])


@plain_torch()
def mitigate(  # noqa: PLR0913  as `find`: keywords
    model: AnyModel,
    *,
    method: str,
    forget: Any,
    forget_unseen: Any = None,
    retain: Any = None,
    holdout: Any = None,
    general: Any = None,
    tokenizer: Any = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    deadline: float | None = None,
    checkpointing: bool = False,
    offload: bool = False,
    device: str | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Mitigation:
    """Let a method act on a model, in place, and measure it before and after.

    Args:
        model: any causal language model of transformers, or where one is: a hub id, a folder, a GGUF file,
            `package:NAME/path`. What stands around it (`torch.compile`, `DataParallel`) is left alone. A model with
            PEFT adapters stays as it is: they are merged into a copy, and that is mitigated. Every parameter may be
            changed, whatever its `requires_grad` says.
        method: the name of a registered method (`unmemorize list methods`).
        forget: sequences to be forgotten: texts with `tokenizer`, token ids, or both in dicts; as a list, table, array,
            tensor, file, or what `find` returned (docs/data.md lists all kinds).
        forget_unseen: memorized sequences that the method is not shown, in any of these kinds, or the share of `forget`
            that is set apart.
        retain: sequences whose behaviour is to be preserved, in any of these kinds, or a corpus (a folder of texts,
            `python-docs`); also the training data of `extra`. Rows like those to be forgotten are left out.
        holdout: sequences on which utility is measured, likewise, or the share of `retain` that is set apart; by
            default the retain set (no method may then be judged by it alone: one that is shown the retain set has seen
            it).
        general: general text as a hold-out of its own, likewise.
        tokenizer: turns texts into token ids; by default the one that lies beside the model.
        metrics: names of the metrics to measure; by default those that are cheap.
        seed: decides everything random.
        deadline: seconds that the method may take.
        checkpointing: recompute the activations of blocks in backward passes: less memory, more time. On, too, where
            the model comes with gradient checkpointing enabled.
        offload: keep scores, masks and copies of weights in main memory while they are not in use.
        device: where the model goes if it is not loaded yet; the best one there is by default.
        registry: a registry of one's own, instead of what is installed.
        progress: where progress is shown; nowhere by default.
        settings: the method's settings (`unmemorize show METHOD`), and how sequences are read: `prompt`, `suffix`,
            `special_tokens`, `max_rows`, `text_rows`, `text_length`, `short_rows`, `long_rows`, `near_duplicates`,
            `marked`, as in suites (docs/data.md).

    Raises:
        UnmemorizeError: the method is unknown, does not apply, or fails; the model is then as it was.
    """
    from unmemorize.contracts.context import Context, Silent
    from unmemorize.data.sets import Sources, open_sets
    from unmemorize.data.settings import SequenceSettings
    from unmemorize.data.tokenization import bounds_of
    from unmemorize.execution.act import act
    from unmemorize.execution.architecture import fill_mlps
    from unmemorize.execution.environment import chosen_device
    from unmemorize.execution.runtime import Runtime
    from unmemorize.execution.session import LoadedTestbed, Skipped
    from unmemorize.models.caller import as_left
    from unmemorize.models.source import as_opened
    from unmemorize.suite.error_messages import Place, called, unknown_key, validated

    registry = registry or load_registry()
    method_class = registry.method(method)
    place = Place("mitigate(...)", "", method)
    known = {**method_class.Config.model_fields, **SequenceSettings.model_fields}
    for name in settings.keys() - known:
        raise unknown_key(place, name, known)
    reading = validated(SequenceSettings, _chosen(settings, SequenceSettings), Place("mitigate(...)", ""))
    acting = method_class(validated(method_class.Config, settings, place))
    said = called("mitigate", seed=seed, deadline=deadline, checkpointing=checkpointing, offload=offload)
    opened = as_opened(model, tokenizer, chosen_device(device), cache_folder())
    model, tokenizer = opened.model, opened.tokenizer
    bounds = bounds_of(model, tokenizer)
    sources = Sources(forget, forget_unseen, retain, holdout, general)
    sets = open_sets(sources, reading, tokenizer, bounds, Context(seed=said.seed).row_generator)
    testbed = _own_testbed(model, tokenizer, sets, bounds)
    fill_mlps(testbed, registry)
    measured = _metrics(registry, metrics)
    try:
        with as_left(model) as recomputed:
            recompute = checkpointing or recomputed
            device, shown = str(testbed.device), progress or Silent()
            runtime = Runtime(device, said.deadline, None, cache_folder(), shown, recompute, offload)
            context = runtime.context(said.seed, said.deadline)
            session = LoadedTestbed(testbed, measured, _headline(measured))
            before = session.measure(context)
            outcome = act(session, acting, context)
    except Skipped as skipped:
        raise cannot_act(acting, str(skipped), testbed, registry) from None
    model.generation_config = opened.generation_config
    made = _mitigation(session, acting, before, outcome)
    return dataclasses.replace(made, seed=seed, origin=registry.origin("method", method).model_dump())


def _mitigation(session: LoadedTestbed, method: Method, before: Any, outcome: Outcome) -> Mitigation:
    from unmemorize.editing.edit_file import edits_of
    from unmemorize.execution.cells import joined
    from unmemorize.execution.environment import environment

    model = session.testbed.model
    values = list(joined(joined(before, before), outcome.after).values())
    return Mitigation(
        model=model,
        method=method.name,
        config=method.config.model_dump(mode="json"),
        values=values,
        seconds=outcome.report.seconds,
        total_seconds=outcome.total_seconds,
        peak_memory=outcome.memory.peak,
        edited=outcome.changes.edited,
        parameters=outcome.changes.parameters,
        flags=sorted({*outcome.report.flags, *_value_flags(session, method, values)}),
        notes=outcome.report.notes,
        curve=outcome.report.curve,
        data={**session.testbed.facts, "window": session.testbed.window._asdict()},
        seed=0,
        origin={},
        edits=edits_of(model, session.reference.original),
        decoding=outcome.report.decoding,
        environment=environment(str(session.testbed.device)),
    )


def _metrics(registry: Registry, names: Sequence[str] | None) -> list[Metric]:
    """Return the metrics of the given names, or those that are measured by default; extraction and accuracy lead."""
    classes = [registry.metric(name) for name in (registry.names("metric") if names is None else names)]
    cheap = [metric for metric in classes if metric.by_default and metric.kind in ("memorization", "utility")]
    wanted = cheap if names is None else classes
    return [metric() for metric in sorted(wanted, key=lambda metric: (metric.kind, metric.name))]


def _chosen(settings: dict[str, Any], config: type[StrictConfig]) -> dict[str, Any]:
    """Take the settings of `config` out of `settings`."""
    return {name: settings.pop(name) for name in config.model_fields if name in settings}


def _value_flags(session: LoadedTestbed, method: Method, values: Sequence[Value]) -> list[str]:
    from unmemorize.leaderboard.rows import value_flags

    labels = [session.headline[on].label(session.testbed) if on in session.headline else "" for on, _ in _HEADLINES]
    flags = value_flags(method.name, values, *labels)
    return flags if all(labels) else [flag for flag in flags if flag != "no-number"]


def _headline(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return what curves and flags are about: of each kind the first metric, of those that are measured by default."""
    leading = sorted(metrics, key=lambda metric: not metric.by_default)
    first = {metric.kind: metric for metric in reversed(leading)}
    return {on: first[kind] for on, kind in _HEADLINES if kind in first}


_HEADLINES: tuple[tuple[str, Kind], ...] = (("forget", "memorization"), ("holdout", "utility"))


def _own_testbed(model: PreTrainedModel, tokenizer: Any, sets: OpenedSequences, bounds: Bounds) -> Testbed:
    from unmemorize.contracts.recipe import TrainingRecipe
    from unmemorize.contracts.testbed import Testbed

    return Testbed(
        name="own",
        model=model,
        forget=sets.forget,
        forget_unseen=sets.forget_unseen,
        retain=sets.retain,
        clean=sets.clean,
        extra=sets.retain,
        holdouts=sets.holdouts or ({} if sets.retain is None else {"retain": sets.retain}),
        window=sets.window,
        pad_id=bounds.pad_id,
        tokenizer=tokenizer,
        recipe=TrainingRecipe.of_pretrained(),
        facts=sets.facts,
    )
