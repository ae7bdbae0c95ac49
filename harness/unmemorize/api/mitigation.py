"""Mitigate a model of one's own, and measure it before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.api.runs import load_registry
from unmemorize.errors import ConfigError, DataError
from unmemorize.files.places import cache_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.api.reading import OwnData
    from unmemorize.contracts.context import Progress
    from unmemorize.contracts.method import Method
    from unmemorize.contracts.metric import Kind, Metric
    from unmemorize.contracts.testbed import Sequences, Testbed, Window
    from unmemorize.editing.edit_file import Edits
    from unmemorize.execution.act import Bench, Outcome
    from unmemorize.registry.manager import Registry
    from unmemorize.results.record import Value

    Rows = Sequences | Tensor | list[list[int]] | list[str] | str | Path


@dataclass(frozen=True, slots=True)
class Mitigation:
    """A mitigated model and what the method did to it."""

    model: PreTrainedModel
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
    notes: dict[str, Any]
    curve: list[dict[str, float]]
    """The first metric of memorization and the first of utility after each epoch, of methods that train."""
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
        from unmemorize.api.saving import save

        facts = {"model": self.model.config.name_or_path} if source is None else source
        return save(self, Path(folder), tokenizer, facts)

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
        share = self.edited / self.parameters
        lines = [
            f"{self.method}: {self.edited:,} of {self.parameters:,} parameters changed ({share:.3%}), "
            f"{self.total_seconds:.2f} s, peak memory {self.peak_memory / 2**20:,.0f} MiB"
        ]
        for value in self.values:
            if value.part == "all" and value.before is not None and value.after is not None:
                lines.append(f"  {value.metric:<22} {value.set:<20} {value.before:10.3f} -> {value.after:10.3f}")
        return "\n".join(lines)


def mitigate(  # noqa: PLR0913  as `find`: keywords
    model: PreTrainedModel,
    *,
    method: str,
    forget: Rows,
    retain: Rows | None = None,
    holdout: Rows | None = None,
    prompt: int | None = None,
    suffix: int | None = None,
    tokenizer: Any = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    deadline: float | None = None,
    checkpointing: bool = False,
    offload: bool = False,
    registry: Registry | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Mitigation:
    """Let a method act on a model, in place, and measure it before and after.

    Args:
        model: any causal language model of transformers whose architecture has a layout.
        method: the name of a registered method (`unmemorize list methods`).
        forget: sequences to be forgotten: token ids (N lists or an (N, T) tensor), texts with `tokenizer`, or the path
            of a file (jsonl, parquet, npy, pt, txt); the other sets then are files, too, or none.
        retain: sequences whose behaviour is to be preserved; also the training data of `extra`.
        holdout: sequences on which utility is measured; by default the retain set (no method may then be judged by it
            alone: a method that is shown the retain set has seen it).
        prompt: tokens shown in the extraction check; half of the shortest forget sequence by default.
        suffix: tokens that must come back; the rest of the longest forget sequence by default.
        tokenizer: turns texts into token ids.
        metrics: names of the metrics to measure; by default those that are cheap.
        seed: decides everything random.
        deadline: seconds that the method may take.
        checkpointing: recompute the activations of blocks in backward passes: less memory, more time. On, too, where
            the model comes with gradient checkpointing enabled.
        offload: keep scores, masks and copies of weights in main memory while they are not in use.
        registry: a registry of one's own, instead of what is installed.
        progress: where progress is shown; nowhere by default.
        settings: the method's settings (`unmemorize show METHOD`).

    Raises:
        UnmemorizeError: the method is unknown, does not apply, or fails; the model is then as it was.
    """
    from unmemorize.contracts.context import Silent
    from unmemorize.execution.act import Bench, Skipped, act
    from unmemorize.execution.surroundings import Surroundings, find_mlps
    from unmemorize.models.versions import evaluation_mode
    from unmemorize.suite.complaint import Place, validated

    registry = registry or load_registry()
    method_class = registry.method(method)
    acting = method_class(validated(method_class.Config, settings, Place("mitigate(...)", "", method)))
    sets: Mapping[str, Any] = {"forget": forget, "retain": retain, "holdout": holdout}
    if isinstance(forget, (str, Path)):
        data = _from_files(sets, model, tokenizer, prompt, suffix)
        sets, (prompt, suffix) = data.sets, data.window
    testbed = _own_testbed(model, sets, tokenizer, (prompt, suffix))
    testbed.mlps = find_mlps(model, registry)
    measured = _metrics(registry, metrics)
    try:
        with evaluation_mode(model) as recomputed:
            recompute = checkpointing or recomputed
            device, shown = str(testbed.device), progress or Silent()
            surroundings = Surroundings(device, deadline, cache_folder(), shown, recompute, offload)
            context = surroundings.context(seed, deadline)
            bench = Bench(testbed, measured, _headline(measured))
            before = bench.measure(context)
            outcome = act(bench, acting, context)
    except Skipped as skipped:
        raise ConfigError(
            f"method {method!r} cannot act here: {skipped}",
            expected=f"what it needs: {', '.join(sorted(acting.needs))}",
            fix="pass it to mitigate(...), or choose another method (`unmemorize list methods`)",
        ) from None
    made = _mitigation(bench, acting, before, outcome)
    return dataclasses.replace(made, seed=seed, origin=registry.origin("method", method).model_dump())


def _mitigation(bench: Bench, method: Method, before: Any, outcome: Outcome) -> Mitigation:
    from unmemorize.editing.edit_file import edits_of
    from unmemorize.execution.environment import environment
    from unmemorize.execution.execute import joined

    model = bench.testbed.model
    return Mitigation(
        model=model,
        method=method.name,
        config=method.config.model_dump(mode="json"),
        values=list(joined(joined(before, before), outcome.after).values()),
        seconds=outcome.report.seconds,
        total_seconds=outcome.total_seconds,
        peak_memory=outcome.memory.peak,
        edited=outcome.changes.edited,
        parameters=outcome.changes.parameters,
        flags=sorted(outcome.report.flags),
        notes=outcome.report.notes,
        curve=outcome.report.curve,
        seed=0,
        origin={},
        edits=edits_of(model, bench.reference.original),
        decoding=outcome.report.decoding,
        environment=environment(str(bench.testbed.device)),
    )


def _metrics(registry: Registry, names: Sequence[str] | None) -> list[Metric]:
    """Return the metrics of the given names, or those that are measured by default; extraction and accuracy lead."""
    classes = [registry.metric(name) for name in (registry.names("metric") if names is None else names)]
    cheap = [metric for metric in classes if metric.by_default and metric.kind in ("memorization", "utility")]
    wanted = cheap if names is None else classes
    return [metric() for metric in sorted(wanted, key=lambda metric: (metric.kind, metric.name))]


def _headline(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Return what curves are drawn of: the first metric of memorization and the first of utility, if there is one."""
    first = {metric.kind: metric for metric in reversed(metrics)}
    return {on: first[kind] for on, kind in _HEADLINES if kind in first}


_HEADLINES: tuple[tuple[str, Kind], ...] = (("forget", "memorization"), ("holdout", "utility"))


def _from_files(
    sets: Mapping[str, Any], model: PreTrainedModel, tokenizer: Any, prompt: int | None, suffix: int | None
) -> OwnData:
    from unmemorize.api.reading import Wanted, read_files

    files = {name: place for name, place in sets.items() if place is not None}
    for name, place in files.items():
        if not isinstance(place, (str, Path)):
            raise DataError(
                f"the forget set is a file, and the {name} set is not",
                expected="files for all sets, or sequences for all",
                fix=f"mitigate(..., {name}='{name}.jsonl')",
            )
    return read_files(files, model, tokenizer, Wanted(prompt, suffix))


def _own_testbed(
    model: PreTrainedModel, sets: Mapping[str, Any], tokenizer: Any, lengths: tuple[int | None, int | None]
) -> Testbed:
    from unmemorize.contracts.recipe import TrainingRecipe
    from unmemorize.contracts.testbed import Testbed

    given = {name: _sequences(rows, name, tokenizer, model) for name, rows in sets.items() if rows is not None}
    chosen, kept = given["forget"], given.get("retain")
    window = _window(chosen, *lengths)
    name = "given" if "holdout" in given else "retain"
    measured = given.get("holdout", kept)
    return Testbed(
        name="own",
        model=model,
        forget=_starting_at(chosen, window.prompt),
        retain=kept,
        extra=kept,
        holdouts={} if measured is None else {name: measured},
        window=window,
        tokenizer=tokenizer,
        recipe=TrainingRecipe.of_pretrained(),
    )


def _starting_at(sequences: Sequences, prompt: int) -> Sequences:
    import torch

    if sequences.anchored:
        return sequences
    return dataclasses.replace(sequences, suffix_starts=torch.full_like(sequences.lengths, prompt))


def _window(forget: Sequences, prompt: int | None, suffix: int | None) -> Window:
    from unmemorize.contracts.testbed import Window

    shortest, longest = int(forget.lengths.min()), int(forget.lengths.max())
    shown = prompt if prompt is not None else max(1, shortest // 2)
    if shown >= longest:
        raise DataError(
            f"prompt={shown} leaves no suffix: the longest forget sequence has {longest} tokens",
            expected=f"a prompt shorter than {longest} tokens",
            fix=f"mitigate(..., prompt={max(1, shortest // 2)})",
        )
    return Window(shown, suffix if suffix is not None else longest - shown)


def _sequences(rows: Any, name: str, tokenizer: Any, model: PreTrainedModel) -> Sequences:
    from unmemorize.contracts.testbed import Sequences

    if isinstance(rows, Sequences):
        made = rows
    else:
        ids = rows
        if len(rows) and isinstance(rows[0], str):
            if tokenizer is None:
                raise DataError(
                    f"the {name} set holds texts, and there is no tokenizer",
                    expected="lists of token ids, or texts together with a tokenizer",
                    fix="mitigate(..., tokenizer=AutoTokenizer.from_pretrained(...))",
                )
            ids = tokenizer(list(rows))["input_ids"]
        made = Sequences.from_rows(ids, prompt=1)
    embedding: Any = model.get_input_embeddings()
    vocabulary, largest = embedding.weight.shape[0], int(made.tokens.max())
    if largest >= vocabulary:
        row = int((made.tokens == largest).any(dim=1).nonzero()[0])
        raise DataError(
            f"the {name} set holds the id {largest} in sequence {row}, outside the model's vocabulary",
            expected=f"ids from 0 to {vocabulary - 1}",
            fix="tokenize with the model's own tokenizer",
        )
    return made
