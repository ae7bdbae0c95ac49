"""The three verbs of the library: run a suite, load its results, mitigate a model of one's own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmemorize.errors import ConfigError, DataError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor
    from transformers import PreTrainedModel

    from unmemorize.contracts.context import Progress
    from unmemorize.contracts.metric import Metric
    from unmemorize.contracts.testbed import Sequences, Testbed, Window
    from unmemorize.execution.bench import Headline, Outcome
    from unmemorize.execution.runner import RunReport
    from unmemorize.leaderboard.board import Board
    from unmemorize.registry.manager import Registry
    from unmemorize.results.record import Value
    from unmemorize.suite.model import Suite

    Rows = Sequences | Tensor | list[list[int]] | list[str]

RESULTS = Path("unmemorize-results")
"""Where results folders are made, one per suite."""


@dataclass(frozen=True, slots=True)
class Results:
    """Records as a polars frame, and the leaderboard over them."""

    frame: pl.DataFrame
    """One row per cell, the latest record of each."""
    folder: Path
    report: RunReport | None = None
    """What the run did, where there was one."""

    @property
    def board(self) -> Board:
        """The leaderboard over these records."""
        from unmemorize.leaderboard.board import build_board

        return build_board(self.frame)


def cache_folder() -> Path:
    """Return where trained testbeds are kept: UNMEMORIZE_CACHE, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("UNMEMORIZE_CACHE") or user_cache_path("unmemorize"))


def run(
    suite: str | Path | Mapping[str, Any] | Suite,
    *,
    methods: Sequence[str] | None = None,
    overrides: Iterable[str] = (),
    plugins: Iterable[str | Path | object] = (),
    results: str | Path | None = None,
    device: str | None = None,
    executor: str | None = None,
    deadline: float | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run a suite, or what is missing of it, and return its records.

    Args:
        suite: the name of a registered suite, the path of a TOML file, a mapping of the same shape, or a loaded suite.
        methods: run only these; a registered method that the suite does not list is added with its defaults.
        overrides: settings as on the command line, e.g. `"method.balanced_subnet.ratio=0.05"`.
        plugins: files, or objects with `hookimpl` functions, beside the installed plugins.
        results: the results folder; `./unmemorize-results/SUITE` by default.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the suite's own by default, or the best one there is.
        executor: where groups of cells run; the suite's own by default, or this process.
        deadline: seconds that a method may take.
        registry: a registry of one's own, instead of what is installed.
        progress: where progress is shown; nowhere by default.

    Raises:
        UnmemorizeError: the suite does not validate, or the results folder cannot be used. Errors of single cells are
            recorded, not raised.
    """
    from unmemorize.contracts.context import Silent
    from unmemorize.execution.bench import Surroundings
    from unmemorize.execution.environment import best_device
    from unmemorize.execution.runner import run_suite
    from unmemorize.suite.load import load_suite
    from unmemorize.suite.model import LOCAL, Suite

    registry = registry or load_registry(plugins)
    loaded = suite if isinstance(suite, Suite) else load_suite(suite, registry, overrides=overrides, methods=methods)
    wanted = device or loaded.run.device
    surroundings = Surroundings(
        device=best_device() if wanted == "auto" else wanted,
        deadline=deadline if deadline is not None else loaded.run.deadline,
        cache=cache_folder(),
        progress=progress or Silent(),
    )
    name = executor or loaded.run.executor
    factory = None
    if name != LOCAL:
        factory_class = registry.executor(name)
        factory = factory_class(factory_class.Config(**loaded.run.executor_config))
    folder = Path(results) if results is not None else RESULTS / loaded.name
    report = run_suite(loaded, registry, folder, surroundings, factory)
    latest = load_results(folder).frame
    return Results(frame=latest.filter(latest["key"].is_in(list(report.keys))), folder=folder, report=report)


def load_registry(plugins: Iterable[str | Path | object] = ()) -> Registry:
    """Return the installed plugins together with the given files and objects."""
    from unmemorize.registry.manager import Registry

    registry = Registry.load()
    for plugin in plugins:
        if isinstance(plugin, (str, Path)):
            registry.add_file(plugin)
        else:
            registry.add(plugin)
    return registry


def load_results(*folders: str | Path) -> Results:
    """Return the latest record of every cell in one or several results folders.

    Raises:
        StoreError: a folder holds no records.
    """
    from unmemorize.results.merge import merge
    from unmemorize.results.store import Store

    paths = [Path(folder) for folder in folders] or [RESULTS]
    frames = [Store(path).latest() for path in paths]
    return Results(frame=frames[0] if len(frames) == 1 else merge(frames).frame, folder=paths[0])


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


def mitigate(
    model: PreTrainedModel,
    *,
    method: str,
    forget: Rows,
    retain: Rows | None = None,
    holdout: Rows | None = None,
    prompt: int | None = None,
    suffix: int | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    deadline: float | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Mitigation:
    """Let a method act on a model, in place, and measure it before and after.

    Args:
        model: any causal language model of transformers whose architecture has a layout.
        method: the name of a registered method (`unmemorize list methods`).
        forget: sequences to be forgotten: token ids (N lists or an (N, T) tensor), or texts with `tokenizer`.
        retain: sequences whose behaviour is to be preserved; also the training data of `extra`.
        holdout: sequences on which utility is measured; by default the retain set (no method may then be judged by it
            alone: a method that is shown the retain set has seen it).
        prompt: tokens shown in the extraction check; half of the shortest forget sequence by default.
        suffix: tokens that must come back; the rest of the longest forget sequence by default.
        tokenizer: turns texts into token ids.
        seed: decides everything random.
        deadline: seconds that the method may take.
        registry: a registry of one's own, instead of what is installed.
        progress: where progress is shown; nowhere by default.
        settings: the method's settings (`unmemorize show METHOD`).

    Raises:
        UnmemorizeError: the method is unknown, does not apply, or fails; the model is then as it was.
    """
    from unmemorize.contracts.context import Silent
    from unmemorize.execution.bench import Bench, Skipped, Surroundings, find_mlps
    from unmemorize.suite.complaint import Place, validated

    registry = registry or load_registry()
    method_class = registry.method(method)
    acting = method_class(validated(method_class.Config, settings, Place("mitigate(...)", "", method)))
    testbed = _own_testbed(model, forget, retain, holdout, tokenizer, (prompt, suffix))
    testbed.mlps = find_mlps(model, registry)
    metrics = _default_metrics(registry)
    surroundings = Surroundings(str(testbed.device), deadline, cache_folder(), progress or Silent())
    training = model.training
    bench = Bench(testbed, metrics, _headline(metrics), surroundings)
    before = bench.measure()
    try:
        outcome = bench.act(acting, seed)
    except Skipped as skipped:
        raise ConfigError(
            f"method {method!r} cannot act here: {skipped}",
            expected=f"what it needs: {', '.join(sorted(acting.needs))}",
            fix="pass it to mitigate(...), or choose another method (`unmemorize list methods`)",
        ) from None
    except BaseException:
        bench.put_back()
        raise
    finally:
        model.train(training)
    return _mitigation(model, method, acting.config, before, outcome)


def _mitigation(model: PreTrainedModel, method: str, config: Any, before: Any, outcome: Outcome) -> Mitigation:
    from unmemorize.execution.execute import joined

    return Mitigation(
        model=model,
        method=method,
        config=config.model_dump(mode="json"),
        values=list(joined(joined(before, before), outcome.after).values()),
        seconds=outcome.context.seconds,
        total_seconds=outcome.total_seconds,
        peak_memory=outcome.memory.peak,
        edited=outcome.edited,
        parameters=outcome.parameters,
        flags=sorted(outcome.context.flags),
        notes=outcome.context.notes,
    )


def _default_metrics(registry: Registry) -> list[Metric]:
    classes = [registry.metric(name) for name in registry.names("metric")]
    wanted = [metric for metric in classes if metric.by_default and metric.kind in ("memorization", "utility")]
    return [metric() for metric in sorted(wanted, key=lambda metric: (metric.kind, metric.name))]


def _headline(metrics: Sequence[Metric]) -> Headline:
    from unmemorize.execution.bench import Headline

    first = {metric.kind: metric for metric in reversed(metrics)}
    return Headline(first["memorization"], first["utility"])


def _own_testbed(
    model: PreTrainedModel,
    forget: Rows,
    retain: Rows | None,
    holdout: Rows | None,
    tokenizer: Any,
    lengths: tuple[int | None, int | None],
) -> Testbed:
    from unmemorize.contracts.testbed import Testbed

    chosen = _sequences(forget, "forget", tokenizer, model)
    window = _window(chosen, *lengths)
    kept = None if retain is None else _sequences(retain, "retain", tokenizer, model)
    measured = kept if holdout is None else _sequences(holdout, "holdout", tokenizer, model)
    name = "retain" if holdout is None else "given"
    return Testbed(
        name="own",
        model=model,
        forget=_starting_at(chosen, window.prompt),
        retain=kept,
        extra=kept,
        holdouts={} if measured is None else {name: measured},
        window=window,
        tokenizer=tokenizer,
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


def _sequences(rows: Rows, name: str, tokenizer: Any, model: PreTrainedModel) -> Sequences:
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
        made = Sequences.from_rows(ids, prompt=1)  # type: ignore[arg-type]
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
